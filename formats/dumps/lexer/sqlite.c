/* What only sqlite3's input has: triggers that hold statements, [names]. */
#include "lexer.h"

static Found
line_comment_at(const Cursor *c, const unsigned char *p)
{
    return *p == '-' ? begins(c, p, "--", 2) : NO;
}

/* A line that begins with a dot or `#` is sqlite3's own, where it takes the statement before for ended: at a
 * line of `/` or `go` too, which are not looked for. In no statement does a line begin so outside of quotes. */
static Answer
own_byte(Lexer *x, Cursor *c, unsigned char b)
{
    unsigned char previous = c->p > c->begin ? c->p[-1] : x->previous;
    (void)b;
    return previous == '\n' || at(c, c->p) == 0 ? tell_command(x, c) : PASS;
}

/* CREATE [TEMP|TEMPORARY] TRIGGER with nothing else between, as sqlite3_complete has it. */
static void
word(Lexer *x, Keyword keyword, Token last, int first)
{
    Statement *s = &x->statement;
    if ((first && keyword == KEY_CREATE) ||
        (last == AFTER_CREATE && (keyword == KEY_TEMP || keyword == KEY_TEMPORARY)))
        s->last = AFTER_CREATE;
    else if (last == AFTER_CREATE && keyword == KEY_TRIGGER)
        s->sqlite.trigger = 1;
}

/* A trigger ends at `; END;`. */
static int
semicolon_is_inner(const Lexer *x)
{
    return x->statement.sqlite.trigger && x->statement.last != AFTER_END;
}

const Dialect sqlite_dialect = {
    .number = SQLITE,
    .replace_inserts = 1,
    .stops = {SIXTEEN_OF('`'), SIXTEEN_OF('[')},
    .pair_stop = {SIXTEEN_OF('\n' | 0x20), SIXTEEN_OF('.' & '#'), SIXTEEN_OF(0xf2)}, /* and a few others */
    .name_quotes = "`[",
    .own = ".#",
    .line_comment_at = line_comment_at,
    .own_byte = own_byte,
    .word = word,
    .semicolon_is_inner = semicolon_is_inner,
};
