/* What only sqlite3's input has: triggers that hold statements, [names]. */
#include "lexer.h"

static Found
line_comment_at(const Cursor *c, const unsigned char *p)
{
    return *p == '-' ? begins(c, p, "--", 2) : NO;
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
    .name_quotes = "`[",
    .own = "",
    .line_comment_at = line_comment_at,
    .word = word,
    .semicolon_is_inner = semicolon_is_inner,
};
