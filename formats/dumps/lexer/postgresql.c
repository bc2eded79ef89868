/* What only psql's input has: $tag$ quotes, E'..', nested comments, COPY data, function bodies in SQL,
 * and the setting that changes what a backslash means. */
#include "lexer.h"

/* ---- $tag$..$tag$ ---------------------------------------------------------------------------------- */

/* At a dollar sign: a quote opens when a tag and a second one follow. */
static Answer
dollar(Lexer *x, Cursor *c)
{
    const unsigned char *p = c->p + 1;
    x->statement.last = OTHER;
    for (; p - c->p < TAG_LIMIT; p++) {
        if (p == c->end) {
            if (!c->final)
                return MORE;
            break;
        }
        if (*p == '$') {
            x->within.inside = DOLLAR;
            x->within.tag_length = (size_t)(p + 1 - c->p);
            memcpy(x->within.tag, c->p, x->within.tag_length);
            c->p = p + 1;
            return GO;
        }
        if (!(x->traits[*p] & (p == c->p + 1 ? WORD_START : WORD)))
            break;
    }
    c->p++;
    return GO;
}

Answer
in_dollar_quote(Lexer *x, Cursor *c)
{
    const unsigned char *p = c->p;
    while ((p = memchr(p, '$', (size_t)(c->end - p))) != NULL) {
        Found found = begins(c, p, x->within.tag, x->within.tag_length);
        c->p = p;
        if (found == UNDECIDED)
            return MORE;
        if (found == YES) {
            x->within.inside = PLAIN;
            c->p += x->within.tag_length;
            return GO;
        }
        p++;
    }
    c->p = c->end;
    return GO;
}

/* ---- words and parentheses -------------------------------------------------------------------------- */

static Found
line_comment_at(const Cursor *c, const unsigned char *p)
{
    return *p == '-' ? begins(c, p, "--", 2) : NO;
}

static Found
client_line_at(const Cursor *c, const unsigned char *p)
{
    (void)c;
    return *p == '\\' ? YES : NO;
}

static Answer
own_byte(Lexer *x, Cursor *c, unsigned char b)
{
    if (b == '$')
        return dollar(x, c);
    if (b == '\\')
        return tell_command(x, c);
    if (b == '(')
        x->statement.postgresql.parens++;
    else
        x->statement.postgresql.parens -= x->statement.postgresql.parens > 0;
    return PASS;
}

/* psql's rule for BEGIN ATOMIC ... END: CREATE [OR REPLACE] FUNCTION or PROCEDURE begins the statement. */
static void
count_begins(Statement *s, Keyword keyword)
{
    unsigned char *create = s->postgresql.create;
    if (s->postgresql.words < sizeof s->postgresql.create)
        create[s->postgresql.words++] = (unsigned char)keyword;
    Keyword kind = create[1] == KEY_OR && create[2] == KEY_REPLACE ? create[3] : create[1];
    if (create[0] != KEY_CREATE || (kind != KEY_FUNCTION && kind != KEY_PROCEDURE) || s->postgresql.parens)
        return;
    uint64_t *begins = &s->postgresql.begins;
    if (keyword == KEY_BEGIN || (keyword == KEY_CASE && *begins))
        ++*begins;
    else if (keyword == KEY_END && *begins)
        --*begins;
}

static void
word(Lexer *x, Keyword keyword, Token last, int first)
{
    Statement *s = &x->statement;
    count_begins(s, keyword);
    if (first)
        s->postgresql.copying = keyword == KEY_COPY;
    if (s->postgresql.copying && !s->postgresql.parens && last == AFTER_FROM && keyword == KEY_STDIN)
        s->postgresql.copy_in = 1;
}

static int
semicolon_is_inner(const Lexer *x)
{
    return x->statement.postgresql.parens || x->statement.postgresql.begins;
}

/* ---- a setting ---------------------------------------------------------------------------------------- */

/* The statement in small letters with one space between its words; `=`, quotes and `;` are spaces.
 * `words` has room for SETTING_LIMIT bytes and a zero. */
static void
normalise(const Lexer *x, const unsigned char *text, size_t length, char *words)
{
    size_t used = 0;
    for (size_t i = 0; i < length; i++) {
        unsigned char b = text[i];
        if (x->traits[b] & SPACE || b == '=' || b == '\'' || b == ';')
            b = ' ';
        if (b == ' ' && (!used || words[used - 1] == ' '))
            continue;
        words[used++] = (char)(b >= 'A' && b <= 'Z' ? b + 32 : b);
    }
    while (used && words[used - 1] == ' ')
        used--;
    words[used] = 0;
}

static int
skip_word(const char **words, const char *word)
{
    size_t length = strlen(word);
    if (strncmp(*words, word, length) != 0)
        return 0;
    *words += length;
    return 1;
}

/* SET [SESSION|LOCAL] standard_conforming_strings {=|TO} value; the only setting that changes quoting. */
static void
watch_setting(Lexer *x, const Event *statement)
{
    char normal[SETTING_LIMIT + 1];
    const char *words = normal;
    if (statement->end - statement->start > SETTING_LIMIT)
        return;
    normalise(x, x->out.text.bytes + statement->text, statement->length, normal);
    if (!skip_word(&words, "set "))
        return;
    if (!skip_word(&words, "session "))
        skip_word(&words, "local ");
    if (!skip_word(&words, "standard_conforming_strings "))
        return;
    skip_word(&words, "to ");
    if (strcmp(words, "off") == 0 || strcmp(words, "false") == 0)
        x->backslashes = 1;
    else if (strcmp(words, "on") == 0 || strcmp(words, "true") == 0)
        x->backslashes = 0;
}

static void
after_statement(Lexer *x, const Event *statement)
{
    watch_setting(x, statement);
    if (x->statement.postgresql.copy_in)
        x->piece = COPY_LINE;
}

/* ---- COPY data ---------------------------------------------------------------------------------------- */

/* What stands behind the statement in its line: psql reads it when the data has ended. */
Answer
copy_line(Lexer *x, Cursor *c)
{
    while (c->p < c->end && *c->p != '\n') {
        if (!(x->traits[*c->p] & SPACE)) {
            Answer answer = tell_command(x, c);
            if (answer != PASS)
                return answer;
        }
        c->p++;
    }
    if (c->p == c->end)
        return GO;
    c->p++;
    return open_copy(x, at(c, c->p));
}

Answer
open_copy(Lexer *x, int64_t start)
{
    x->piece = COPY;
    x->start = start;
    x->rows.lead.used = 0;
    x->rows.line_start = 1;
    return emit_rows(x, ROWS_BEGIN, start);
}

/* Up to the line of backslash and dot. */
Answer
copy_data(Lexer *x, Cursor *c)
{
    if (x->rows.line_start) {
        Found lf = begins(c, c->p, "\\.\n", 3), crlf = begins(c, c->p, "\\.\r\n", 4);
        if (lf == UNDECIDED || crlf == UNDECIDED)
            return MORE;
        if (lf == YES || crlf == YES) {
            c->p += lf == YES ? 3 : 4;
            x->piece = NOTHING;
            return emit_rows(x, ROWS_END, at(c, c->p));
        }
    }
    const unsigned char *found = find_copy_end(c->p, c->end);
    x->rows.line_start = 1;
    if (found) {
        c->p = found + 1;
    }
    else if (c->end - c->p >= 2 && c->end[-2] == '\n' && c->end[-1] == '\\') {
        c->p = c->end - 1;
    }
    else {
        x->rows.line_start = c->end[-1] == '\n';
        c->p = c->end;
    }
    return GO;
}

const Dialect postgresql_dialect = {
    .number = POSTGRESQL,
    .comments_nest = 1,
    .dollar_quotes = 1,
    .prefix = 'e',
    .pair_stop = {SIXTEEN_OF('e'), SIXTEEN_OF('\''), SIXTEEN_OF(0xff)},
    .stops = {SIXTEEN_OF('$'), SIXTEEN_OF('\\')},
    .name_quotes = "",
    .own = "$()\\",
    .line_comment_at = line_comment_at,
    .client_line_at = client_line_at,
    .own_byte = own_byte,
    .word = word,
    .semicolon_is_inner = semicolon_is_inner,
    .after_statement = after_statement,
};
