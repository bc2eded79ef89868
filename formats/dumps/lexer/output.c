/* Memory that grows with what is kept, and the events of one feed. */
#include "lexer.h"

#include <stdlib.h>

#define OUTPUT_KEPT ((size_t)4 << 20) /* bytes, of events and of texts */

/* ---- memory ------------------------------------------------------------------------------------ */

int
buffer_reserve(Buffer *buffer, size_t wanted)
{
    if (wanted <= buffer->room)
        return 0;
    size_t size = buffer->room ? buffer->room : 256;
    while (size < wanted) {
        if (size > SIZE_MAX / 2)
            return -1;
        size *= 2;
    }
    unsigned char *larger = realloc(buffer->bytes, size); /* PyMem_Raw* is not in the 3.11 limited API */
    if (larger == NULL)
        return -1;
    buffer->bytes = larger;
    buffer->room = size;
    return 0;
}

int
buffer_append(Buffer *buffer, const unsigned char *bytes, size_t length)
{
    if (buffer_reserve(buffer, buffer->used + length) < 0)
        return -1;
    if (length) /* neither side may be NULL for memcpy */
        memcpy(buffer->bytes + buffer->used, bytes, length);
    buffer->used += length;
    return 0;
}

int
save_text(Lexer *x, Cursor *c)
{
    size_t n = (size_t)(c->p - c->unsaved), left = x->text_limit - x->text.used;
    int status = buffer_append(&x->text, c->unsaved, n < left ? n : left);
    c->unsaved = c->p;
    return status;
}

/* Keeps what memory a usual feed takes: a feed of 1 MiB otherwise faults it in anew each time. */
void
output_clear(Output *out)
{
    if (out->text.room > OUTPUT_KEPT || out->room > OUTPUT_KEPT / sizeof *out->events) {
        output_free(out);
    }
    else {
        out->used = out->text.used = 0;
    }
}

void
output_free(Output *out)
{
    free(out->events);
    free(out->text.bytes);
    *out = (Output){0};
}

/* ---- events ------------------------------------------------------------------------------------ */

static int
add_event(Output *out, int kind, int64_t start, int64_t end, size_t length)
{
    if (out->used == out->room) {
        size_t room = out->room ? out->room * 2 : 64;
        Event *events = room > SIZE_MAX / sizeof *events ? NULL : realloc(out->events, room * sizeof *events);
        if (events == NULL)
            return -1;
        out->events = events;
        out->room = room;
    }
    out->events[out->used++] = (Event){kind, start, end, out->text.used - length, length};
    return 0;
}

/* The piece from its start to `end`: what was saved of its text, then what the cursor still has. */
Answer
emit_piece(Lexer *x, const Cursor *c, int kind, int64_t end)
{
    size_t length = end - x->start < (int64_t)x->text_limit ? (size_t)(end - x->start) : x->text_limit;
    size_t saved = length < x->text.used ? length : x->text.used;
    Buffer *text = &x->out.text;
    if (buffer_append(text, x->text.bytes, saved) < 0 || buffer_append(text, c->unsaved, length - saved) < 0)
        return FAILED;
    return add_event(&x->out, kind, x->start, end, length) < 0 ? FAILED : GO;
}

/* `length` bytes at the cursor, within the piece that is open. */
Answer
emit_command(Lexer *x, const Cursor *c, size_t length)
{
    int64_t start = at(c, c->p);
    if (buffer_append(&x->out.text, c->p, length) < 0)
        return FAILED;
    return add_event(&x->out, COMMAND, start, start + (int64_t)length, length) < 0 ? FAILED : GO;
}

Answer
emit_rows(Lexer *x, int kind, int64_t end)
{
    const Buffer *lead = &x->rows.lead;
    if (buffer_append(&x->out.text, lead->bytes, lead->used) < 0)
        return FAILED;
    return add_event(&x->out, kind, x->start, end, lead->used) < 0 ? FAILED : GO;
}
