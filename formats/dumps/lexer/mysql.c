/* What only the mysql client's input has: the DELIMITER command, comments that servers execute, `#`. */
#include "lexer.h"

static Found
line_comment_at(const Cursor *c, const unsigned char *p)
{
    if (*p == '#')
        return YES;
    Found found = *p == '-' ? begins(c, p, "--", 2) : NO;
    if (found != YES)
        return found;
    if (c->end - p > 2) /* 5--1 is 6 */
        return p[2] <= ' ' ? YES : NO;
    return c->final ? YES : UNDECIDED;
}

/* Whether one of two texts begins at p. */
static Found
either_at(const Cursor *c, const unsigned char *p, const char *one, const char *other)
{
    Found a = begins(c, p, one, strlen(one)), b = begins(c, p, other, strlen(other));
    if (a == UNDECIDED || b == UNDECIDED)
        return UNDECIDED;
    return a == YES || b == YES ? YES : NO;
}

static Found
executable_at(const Cursor *c, const unsigned char *p)
{
    return either_at(c, p, "/*!", "/*M!");
}

/* A comment of its own: a plain one, or one for a version that no server has. The latter is mysqldump's way
 * to reach the client only, and no delimiter follows it. */
static Found
block_comment_at(const Cursor *c, const unsigned char *p)
{
    Found plain = begins(c, p, "/*", 2);
    if (plain != YES)
        return plain;
    Found code = executable_at(c, p);
    if (code != YES)
        return code == NO ? YES : UNDECIDED;
    return either_at(c, p, "/*!999999", "/*M!999999");
}

/* The command DELIMITER in any case, with a space or tab behind it. */
static Found
client_line_at(const Cursor *c, const unsigned char *p)
{
    static const char command[] = "DELIMITER";
    for (size_t i = 0; i < sizeof command - 1; i++, p++) {
        if (p == c->end)
            return c->final ? NO : UNDECIDED;
        if ((*p & 0xdf) != command[i])
            return NO;
    }
    if (p == c->end)
        return c->final ? NO : UNDECIDED;
    return *p == ' ' || *p == '\t' ? YES : NO;
}

/* A command of one letter, but for \N, which the client passes on for NULL. */
static Answer
backslash(Lexer *x, const Cursor *c)
{
    Found null = begins(c, c->p, "\\N", 2);
    if (null == UNDECIDED)
        return MORE;
    return null == YES ? PASS : tell_command(x, c);
}

/* What servers execute is code like any other, from behind its opening up to its star and slash. */
static Answer
own_byte(Lexer *x, Cursor *c, unsigned char b)
{
    if (b == '\\')
        return backslash(x, c);
    if (b == '*' && !x->statement.executable)
        return PASS;
    Found found = b == '/' ? executable_at(c, c->p) : begins(c, c->p, "*/", 2);
    if (found != YES)
        return found == NO ? PASS : MORE;
    x->statement.executable = b == '/';
    if (b == '*')
        c->p += 2;
    else
        c->p += c->p[2] == '!' ? 3 : 4;
    return GO;
}

static void
watch_delimiter(Lexer *x, const Event *line)
{
    const unsigned char *text = x->out.text.bytes + line->text;
    size_t start = sizeof "DELIMITER" - 1, end;
    if (line->end - line->start > (int64_t)line->length)
        return; /* longer than the text limit */
    while (start < line->length && x->traits[text[start]] & SPACE)
        start++;
    for (end = start; end < line->length && !(x->traits[text[end]] & SPACE); end++)
        if (text[end] == '\\')
            return; /* the client refuses it */
    if (end == start || end - start > DELIMITER_LIMIT)
        return;
    x->delimiter_length = end - start;
    memcpy(x->delimiter, text + start, x->delimiter_length);
}

const Dialect mysql_dialect = {
    .number = MYSQL,
    .starts_backslashes = 1,
    .double_quoted_strings = 1,
    .replace_inserts = 1,
    .value_is_values = 1,
    .stops = {SIXTEEN_OF('`'), SIXTEEN_OF('#')},
    .name_quotes = "`",
    .own = "/*\\",
    .line_comment_at = line_comment_at,
    .block_comment_at = block_comment_at,
    .client_line_at = client_line_at,
    .own_byte = own_byte,
    .after_client_line = watch_delimiter,
};
