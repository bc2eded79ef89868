/* The stream: feeds and the undecided bytes between them, what begins and ends a piece. */
#include "lexer.h"

#include <stdlib.h>

/* ---- between pieces -------------------------------------------------------------------------------- */

static void
open_piece(Lexer *x, Cursor *c, Piece piece)
{
    x->piece = piece;
    x->start = at(c, c->p);
    x->text.used = 0;
    c->unsaved = c->p;
    x->within.inside = PLAIN;
    x->statement = (Statement){0};
}

static Found
block_comment_at(const Lexer *x, const Cursor *c)
{
    if (*c->p != '/')
        return NO;
    return x->dialect->block_comment_at ? x->dialect->block_comment_at(c, c->p) : begins(c, c->p, "/*", 2);
}

static Answer
between_pieces(Lexer *x, Cursor *c)
{
    while (x->traits[*c->p] & SPACE)
        if (++c->p == c->end)
            return GO;
    Found found = delimiter_at(x, c, c->p);
    if (found == YES) {
        open_piece(x, c, CODE);
        return statement_end(x, c);
    }
    if (found == NO && (found = x->dialect->line_comment_at(c, c->p)) == YES) {
        open_piece(x, c, LINES);
        return GO;
    }
    if (found == NO && (found = block_comment_at(x, c)) == YES) {
        open_piece(x, c, BLOCK);
        return plain_block_comment(x, c);
    }
    if (found == NO && x->dialect->client_line_at)
        found = x->dialect->client_line_at(c, c->p);
    if (found == UNDECIDED)
        return MORE;
    open_piece(x, c, found == YES ? CLIENT_LINE : CODE);
    return GO;
}

/* ---- lines ------------------------------------------------------------------------------------------- */

/* The newline of a line that ended, or NULL with all consumed. */
static const unsigned char *
newline(Cursor *c)
{
    const unsigned char *found = memchr(c->p, '\n', (size_t)(c->end - c->p));
    c->p = found ? found : c->end;
    return found;
}

/* Where the line that ends at c->p ends without its carriage return. */
static int64_t
line_end(const Lexer *x, const Cursor *c)
{
    unsigned char previous = c->p > c->begin ? c->p[-1] : x->previous;
    return at(c, c->p) - (previous == '\r' && c->p < c->end);
}

static Answer
comment_lines(Lexer *x, Cursor *c)
{
    if (!newline(c))
        return GO;
    if (c->end - c->p == 1 && !c->final)
        return MORE;
    Found delimiter = NO, comment = NO;
    if (c->end - c->p > 1) {
        delimiter = delimiter_at(x, c, c->p + 1);
        comment = x->dialect->line_comment_at(c, c->p + 1);
    }
    if (delimiter == UNDECIDED || comment == UNDECIDED)
        return MORE;
    if (comment == YES && delimiter == NO) {
        c->p++;
        return GO;
    }
    x->piece = NOTHING;
    return emit_piece(x, c, COMMENT, line_end(x, c));
}

static Answer
end_client_line(Lexer *x, Cursor *c)
{
    x->piece = NOTHING;
    if (emit_piece(x, c, META, line_end(x, c)) == FAILED)
        return FAILED;
    if (x->dialect->after_client_line)
        x->dialect->after_client_line(x, &x->out.events[x->out.used - 1]);
    return GO;
}

/* ---- the stream ---------------------------------------------------------------------------------------- */

static Answer
comment_block(Lexer *x, Cursor *c)
{
    int closed;
    Answer answer = in_block_comment(x, c, &closed);
    if (!closed)
        return answer;
    x->piece = NOTHING;
    return emit_piece(x, c, COMMENT, at(c, c->p));
}

static Answer
step(Lexer *x, Cursor *c)
{
    switch (x->piece) {
    case NOTHING:
        return between_pieces(x, c);
    case LINES:
        return comment_lines(x, c);
    case BLOCK:
        return comment_block(x, c);
    case CLIENT_LINE:
        return newline(c) ? end_client_line(x, c) : GO;
    case CODE:
    case INSERT:
    case BETWEEN:
        return statements(x, c);
    case COPY_LINE:
        return copy_line(x, c);
    case COPY:
        return copy_data(x, c);
    }
    return FAILED;
}

/* Goes as far as the bytes decide; c->p is where it stopped. */
static int
run(Lexer *x, Cursor *c)
{
    Answer answer = GO;
    c->unsaved = c->begin;
    while (answer == GO && c->p < c->end)
        answer = step(x, c);
    if (answer == FAILED)
        return -1;
    if (c->p > c->begin)
        x->previous = c->p[-1];
    if (x->piece == LINES || x->piece == BLOCK || x->piece == CLIENT_LINE || x->piece == CODE)
        return save_text(x, c);
    return 0;
}

/* Emits what is open at the end of the stream, c->p == c->end. `piece` stays, for lexer_state to tell. */
static Answer
close_open(Lexer *x, Cursor *c)
{
    int64_t end = at(c, c->end);
    if (x->within.inside == IN_WORD && (x->piece == CODE || x->piece == INSERT) && word_end(x, c) == FAILED)
        return FAILED;
    switch (x->piece) {
    case NOTHING:
        return GO;
    case LINES:
    case BLOCK:
        return emit_piece(x, c, COMMENT, end);
    case CLIENT_LINE:
        return end_client_line(x, c);
    case CODE:
        return emit_piece(x, c, STATEMENT, end);
    case BETWEEN:
        return emit_rows(x, ROWS_END, x->rows.end);
    case COPY_LINE:
        return open_copy(x, end) == FAILED ? FAILED : emit_rows(x, ROWS_END, end);
    case INSERT:
    case COPY:
        return emit_rows(x, ROWS_END, end);
    }
    return FAILED;
}

static int
keep_tail(Lexer *x, const unsigned char *bytes, size_t length)
{
    if (buffer_reserve(&x->tail, length) < 0)
        return -1;
    if (length) /* may overlap: what is kept can stand in the tail itself */
        memmove(x->tail.bytes, bytes, length);
    x->tail.used = length;
    return 0;
}

int
lexer_feed(Lexer *x, const unsigned char *data, size_t size)
{
    if (x->tail.used && size) {
        size_t kept = x->tail.used, taken = size < WINDOW ? size : WINDOW;
        if (buffer_append(&x->tail, data, taken) < 0)
            return -1;
        const unsigned char *tail = x->tail.bytes;
        Cursor c = {tail, tail, tail + kept + taken, tail, x->offset, 0};
        if (run(x, &c) < 0)
            return -1;
        size_t done = (size_t)(c.p - c.begin);
        x->offset += (int64_t)done;
        if (taken == size || done < kept) /* the latter never: a window decides everything */
            return taken == size ? keep_tail(x, c.p, kept + taken - done) : -1;
        data += done - kept;
        size -= done - kept;
        x->tail.used = 0;
    }
    if (size == 0)
        return 0;
    Cursor c = {data, data, data + size, data, x->offset, 0};
    if (run(x, &c) < 0)
        return -1;
    x->offset += c.p - c.begin;
    return keep_tail(x, c.p, (size_t)(c.end - c.p));
}

int
lexer_finish(Lexer *x)
{
    static const unsigned char none[1];
    const unsigned char *tail = x->tail.used ? x->tail.bytes : none;
    Cursor c = {tail, tail, tail + x->tail.used, tail, x->offset, 1};
    if (run(x, &c) < 0)
        return -1;
    c.unsaved = c.p;
    return close_open(x, &c) == FAILED ? -1 : 0;
}

/* ---- a lexer ------------------------------------------------------------------------------------------- */

const char *
lexer_state(const Lexer *x)
{
    const Within *w = &x->within;
    if (x->piece == BLOCK)
        return "comment";
    if (x->piece == INSERT || x->piece == COPY_LINE || x->piece == COPY)
        return "rows";
    if (x->piece != CODE)
        return "";
    switch (w->inside) {
    case DOLLAR:
        return "dollar quote";
    case BLOCK_COMMENT:
        return "comment";
    case QUOTED:
        return w->quote == '\'' || (w->quote == '"' && x->dialect->double_quoted_strings) ? "string" : "quoted name";
    default:
        return "statement";
    }
}

static void
set_traits(Lexer *x)
{
    unsigned char digit = x->dialect->dollar_quotes ? WORD : WORD | WORD_START;
    for (int b = 0; b < 256; b++) {
        if (b == ' ' || (b >= '\t' && b <= '\r'))
            x->traits[b] = SPACE;
        else if (b >= 0x80 || b == '_' || (b >= 'a' && b <= 'z') || (b >= 'A' && b <= 'Z'))
            x->traits[b] = WORD | WORD_START;
        else if (b == '$' || (b >= '0' && b <= '9'))
            x->traits[b] = digit;
    }
    x->traits['"'] |= NAME_QUOTE;
    for (const char *quote = x->dialect->name_quotes; *quote; quote++)
        x->traits[(unsigned char)*quote] |= NAME_QUOTE;
    for (const char *own = x->dialect->own; *own; own++)
        x->traits[(unsigned char)*own] |= OWN;
}

void
lexer_init(Lexer *x, const Dialect *dialect, size_t text_limit)
{
    x->dialect = dialect;
    x->text_limit = text_limit;
    x->lead_limit = text_limit < LEAD_LIMIT ? text_limit : LEAD_LIMIT;
    x->backslashes = dialect->starts_backslashes;
    x->delimiter[0] = ';';
    x->delimiter_length = 1;
    set_traits(x);
}

void
lexer_free(Lexer *x)
{
    free(x->text.bytes);
    free(x->rows.lead.bytes);
    free(x->tail.bytes);
    output_free(&x->out);
}
