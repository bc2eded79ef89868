/* The bytes of a statement: quotes, comments, and its end. */
#include "lexer.h"

/* ---- quotes ------------------------------------------------------------------------------------------ */

Answer
open_quoted(Lexer *x, Cursor *c, unsigned char closing, int escapes)
{
    x->within.inside = QUOTED;
    x->within.quote = closing;
    x->within.escapes = escapes;
    x->statement.last = OTHER;
    c->p++;
    return GO;
}

/* The first byte that may end the string or take a meaning away; `end` when there is none. */
static inline const unsigned char *
string_stop(const Within *w, const unsigned char *p, const unsigned char *end)
{
    if (!w->escapes) {
        p = memchr(p, w->quote, (size_t)(end - p));
        return p ? p : end;
    }
    while (p < end && *p != w->quote && *p != '\\')
        p++;
    return p;
}

/* A doubled quote closes and opens again at once; only E'..' must be told from the '..' it would become. */
static Answer
quoted(Lexer *x, Cursor *c)
{
    const Within *w = &x->within;
    const unsigned char *p = c->p, *end = c->end;
    int prefixed = w->quote == '\'' && w->escapes != x->backslashes;
    while ((p = string_stop(w, p, end)) < end) {
        int backslash = *p == '\\';
        if (!backslash && !prefixed)
            break;
        if (end - p >= 2) {
            if (!backslash && p[1] != w->quote)
                break;
            p += 2;
            continue;
        }
        c->p = p;
        if (!c->final)
            return MORE;
        if (!backslash)
            break;
        p = end;
    }
    c->p = p;
    if (p < end) {
        x->within.inside = PLAIN;
        c->p++;
    }
    return GO;
}

/* ---- comments ---------------------------------------------------------------------------------------- */

/* Goes on behind the opening of a comment; 1 in *closed when its end was passed. */
Answer
in_block_comment(Lexer *x, Cursor *c, int *closed)
{
    const unsigned char *p = c->p;
    *closed = 0;
    for (; p < c->end; p++) {
        if (*p != '*' && (*p != '/' || !x->dialect->comments_nest))
            continue;
        if (c->end - p < 2) {
            c->p = c->final ? c->end : p;
            return c->final ? GO : MORE;
        }
        if (*p == '*' && p[1] == '/') {
            p++;
            if (--x->within.comments == 0) {
                c->p = p + 1;
                *closed = 1;
                return GO;
            }
        }
        else if (*p == '/' && p[1] == '*') {
            p++;
            x->within.comments++;
        }
    }
    c->p = c->end;
    return GO;
}

static Answer
block_comment(Lexer *x, Cursor *c)
{
    int closed;
    Answer answer = in_block_comment(x, c, &closed);
    if (closed)
        x->within.inside = PLAIN;
    return answer;
}

static Answer
line_comment(Lexer *x, Cursor *c)
{
    const unsigned char *newline = memchr(c->p, '\n', (size_t)(c->end - c->p));
    c->p = newline ? newline + 1 : c->end;
    if (newline)
        x->within.inside = PLAIN;
    return GO;
}

/* c->p is at slash and star. */
Answer
plain_block_comment(Lexer *x, Cursor *c)
{
    x->within.inside = BLOCK_COMMENT;
    x->within.comments = 1;
    c->p += 2;
    return GO;
}

/* ---- the rest ------------------------------------------------------------------------------------------ */

/* c->p is at the delimiter. */
Answer
statement_end(Lexer *x, Cursor *c)
{
    c->p += x->delimiter_length;
    x->within.inside = PLAIN;
    if (x->piece == INSERT) {
        x->rows.end = at(c, c->p);
        x->piece = BETWEEN;
        return GO;
    }
    if (emit_piece(x, c, STATEMENT, at(c, c->p)) == FAILED)
        return FAILED;
    x->piece = NOTHING;
    if (x->dialect->after_statement)
        x->dialect->after_statement(x, &x->out.events[x->out.used - 1]);
    return GO;
}

static Answer
semicolon(Lexer *x, Cursor *c)
{
    if (x->piece != CODE || !x->dialect->semicolon_is_inner || !x->dialect->semicolon_is_inner(x))
        return statement_end(x, c);
    x->statement.last = AFTER_SEMICOLON;
    c->p++;
    return GO;
}

/* Whether the text up to here can still be an INSERT's before its rows, when b comes next. */
static LeadState
lead_with(const Lexer *x, unsigned char b)
{
    LeadState lead = x->statement.lead;
    if (x->traits[b] & (SPACE | WORD_START | NAME_QUOTE) || b == '.')
        return lead;
    if (b == '(' && lead == NAMES)
        return COLUMNS;
    if (b == ')' && lead == COLUMNS)
        return NAMES;
    return b == ',' && lead == COLUMNS ? lead : NO_LEAD;
}

/* What the client takes for itself at c->p, where it reads a statement: one is told of each piece, because no
 * dump tool writes any, and a flood of them shall not cost more than the pieces do. PASS when that is done. */
Answer
tell_command(Lexer *x, const Cursor *c)
{
    if (x->statement.told)
        return PASS;
    size_t left = (size_t)(c->end - c->p), length = left < COMMAND_LIMIT ? left : COMMAND_LIMIT;
    const unsigned char *newline = memchr(c->p, '\n', length);
    if (newline)
        length = (size_t)(newline - c->p);
    else if (length < COMMAND_LIMIT && !c->final)
        return MORE;
    x->statement.told = 1;
    return emit_command(x, c, length) == FAILED ? FAILED : PASS;
}

/* A byte that means nothing by itself. */
static Answer
other_byte(Lexer *x, Cursor *c, unsigned char b)
{
    x->statement.last = b == '.' ? AFTER_DOT : OTHER;
    /* Digits in one go: see skip_blocks. */
    do
        c->p++;
    while (b >= '0' && b <= '9' && c->p < c->end && *c->p >= '0' && *c->p <= '9');
    return GO;
}

/* A byte that can open a comment. */
static Answer
comment_byte(Lexer *x, Cursor *c, unsigned char b)
{
    Found found = b == '/' ? begins(c, c->p, "/*", 2) : x->dialect->line_comment_at(c, c->p);
    if (found == UNDECIDED)
        return MORE;
    if (found == NO)
        return other_byte(x, c, b);
    if (b == '/')
        return plain_block_comment(x, c);
    x->within.inside = LINE_COMMENT;
    return GO;
}

static Answer
plain(Lexer *x, Cursor *c)
{
    unsigned char b = *c->p, traits = x->traits[b];
    Found delimiter = delimiter_at(x, c, c->p);
    if (delimiter != NO)
        return delimiter == UNDECIDED ? MORE : semicolon(x, c);
    if (traits & SPACE) {
        c->p++;
        return GO;
    }
    if (x->statement.lead != NO_LEAD)
        x->statement.lead = lead_with(x, b);
    if (traits & WORD_START) {
        x->within.inside = IN_WORD;
        x->word.length = 0;
        return in_word(x, c);
    }
    if (b == '\'')
        return open_quoted(x, c, b, x->backslashes);
    if (traits & NAME_QUOTE)
        return open_quoted(x, c, b == '[' ? ']' : b, b == '"' && x->dialect->double_quoted_strings);
    if (traits & OWN) {
        Answer answer = x->dialect->own_byte(x, c, b);
        if (answer != PASS)
            return answer;
    }
    return b == '-' || b == '#' || b == '/' ? comment_byte(x, c, b) : other_byte(x, c, b);
}

/* ---- runs of INSERT -------------------------------------------------------------------------------- */

/* Whether another INSERT with the lead of the open run begins at c->p: the lead, and its last word ends there. */
static Found
lead_at(const Lexer *x, const Cursor *c)
{
    const Buffer *lead = &x->rows.lead;
    Found same = begins(c, c->p, lead->bytes, lead->used);
    if (same != YES)
        return same;
    const unsigned char *behind = c->p + lead->used;
    if (behind == c->end)
        return c->final ? YES : UNDECIDED;
    return x->traits[*behind] & WORD ? delimiter_at(x, c, behind) : YES;
}

static Answer
between_rows(Lexer *x, Cursor *c)
{
    while (x->traits[*c->p] & SPACE)
        if (++c->p == c->end)
            return GO;
    Found same = lead_at(x, c);
    if (same == UNDECIDED)
        return MORE;
    if (same == YES) {
        c->p += x->rows.lead.used;
        x->piece = INSERT;
        x->statement.executable = 0;
        return GO;
    }
    x->piece = NOTHING;
    return emit_rows(x, ROWS_END, x->rows.end);
}

/* ---- steps ------------------------------------------------------------------------------------------- */

/* Whether skip_blocks may go on from here. */
static inline int
in_blocks(const Lexer *x, const Cursor *c)
{
    const Within *w = &x->within;
    if (c->end - c->p <= BLOCK_SIZE || x->statement.executable || x->delimiter[0] == '\'')
        return 0;
    if (w->inside == PLAIN && x->traits[*c->p] & OWN)
        return 0;
    return w->inside == PLAIN || (w->inside == QUOTED && w->quote == '\'' && w->escapes == x->backslashes);
}

static inline Answer
statement_step(Lexer *x, Cursor *c)
{
    if (x->piece == INSERT && in_blocks(x, c))
        skip_blocks(x, c);
    switch (x->within.inside) {
    case PLAIN:
        return plain(x, c);
    case IN_WORD:
        return in_word(x, c);
    case QUOTED:
        return quoted(x, c);
    case DOLLAR:
        return in_dollar_quote(x, c);
    case LINE_COMMENT:
        return line_comment(x, c);
    case BLOCK_COMMENT:
        return block_comment(x, c);
    }
    return FAILED;
}

/* Steps within one statement, or within the statements of a run of rows: to its end or that of the cursor. */
Answer
statements(Lexer *x, Cursor *c)
{
    Answer answer = GO;
    while (answer == GO && c->p < c->end) {
        if (x->piece == CODE || x->piece == INSERT)
            answer = statement_step(x, c);
        else if (x->piece == BETWEEN)
            answer = between_rows(x, c);
        else
            break;
    }
    return answer;
}
