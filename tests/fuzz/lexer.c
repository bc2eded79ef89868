/* libFuzzer target: the lexer's events are the same however the stream is cut, and stand where they may.
 *
 * Input: dialect, text limit, seed of the cuts (2 bytes), then the stream. The parts of the stream are
 * copies of exactly their length, so that the sanitizer sees a read behind one. */
#include "lexer.h"

#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            abort(); \
        } \
    } while (0)

static const Dialect *const dialects[] = {&postgresql_dialect, &mysql_dialect, &sqlite_dialect};
static const size_t limits[] = {64, 65, 100, 1000, (size_t)1 << 20};

/* What all feeds found together: Lexer.out is cleared between them, as the Python module does. */
static void
collect(Lexer *x, Output *all)
{
    for (size_t i = 0; i < x->out.used; i++) {
        Event event = x->out.events[i];
        const unsigned char *text = x->out.text.bytes + event.text;
        event.text = all->text.used;
        CHECK(buffer_append(&all->text, text, event.length) == 0);
        if (all->used == all->room) {
            all->room = all->room ? all->room * 2 : 64;
            all->events = realloc(all->events, all->room * sizeof *all->events);
            CHECK(all->events != NULL);
        }
        all->events[all->used++] = event;
    }
    output_clear(&x->out);
}

static void
feed_copy(Lexer *x, const unsigned char *data, size_t size, Output *all)
{
    unsigned char *copy = malloc(size ? size : 1);
    CHECK(copy != NULL);
    memcpy(copy, data, size);
    CHECK(lexer_feed(x, copy, size) == 0);
    free(copy);
    collect(x, all);
}

/* Lexes the stream in parts of up to `part` bytes, whose lengths follow `seed`; 0: at once. */
static const char *
lex(const Dialect *dialect, size_t limit, const unsigned char *data, size_t size, size_t part, uint32_t seed, Output *all)
{
    Lexer *x = calloc(1, sizeof *x);
    CHECK(x != NULL);
    lexer_init(x, dialect, limit);
    while (part && size) {
        seed = seed * 1664525 + 1013904223;
        size_t length = (seed >> 16) % (part + 1);
        length = length < size ? length : size;
        feed_copy(x, data, length, all);
        data += length;
        size -= length;
    }
    feed_copy(x, data, size, all);
    CHECK(lexer_finish(x) == 0);
    collect(x, all);
    const char *state = lexer_state(x);
    lexer_free(x);
    free(x);
    return state;
}

static void
check_places(const Output *all, const unsigned char *data, size_t size, size_t limit)
{
    int64_t last = 0, rows = -1;
    for (size_t i = 0; i < all->used; i++) {
        const Event *e = &all->events[i];
        CHECK(e->start <= e->end && e->end <= (int64_t)size);
        CHECK((e->length <= limit || e->kind == COMMAND) && e->text + e->length <= all->text.used);
        CHECK(e->length == 0 || memcmp(all->text.bytes + e->text, data + e->start, e->length) == 0);
        if (e->kind == COMMAND) {
            CHECK(e->start >= last && e->length == (size_t)(e->end - e->start) && e->length <= COMMAND_LIMIT);
            continue;
        }
        CHECK((rows >= 0) == (e->kind == ROWS_END));
        if (e->kind == ROWS_END)
            CHECK(e->start == rows);
        else
            CHECK(e->start >= last);
        rows = e->kind == ROWS_BEGIN ? e->start : -1;
        if (e->kind != ROWS_BEGIN && e->kind != ROWS_END)
            CHECK(e->start < e->end);
        if (e->kind == COMMENT || e->kind == STATEMENT || e->kind == META)
            CHECK(e->length == (size_t)(e->end - e->start) || e->length == limit);
        last = e->end;
    }
    CHECK(rows < 0);
}

static void
check_same(const Output *a, const Output *b)
{
    CHECK(a->used == b->used && a->text.used == b->text.used);
    CHECK(a->text.used == 0 || memcmp(a->text.bytes, b->text.bytes, a->text.used) == 0);
    for (size_t i = 0; i < a->used; i++) {
        const Event *m = &a->events[i], *n = &b->events[i];
        CHECK(m->kind == n->kind && m->start == n->start && m->end == n->end);
        CHECK(m->text == n->text && m->length == n->length);
    }
}

/* The search for needles taken from the stream against the obvious one, on a copy of exactly its length. */
static void
check_search(const unsigned char *data, size_t size, uint32_t seed)
{
    size_t first = 1 + seed % 40, second = 1 + (seed >> 6) % 5;
    if (size < first + second)
        return;
    const Needle needles[] = {{data, first}, {data + first, second}}, common = {0};
    unsigned char *copy = malloc(size);
    CHECK(copy != NULL);
    memcpy(copy, data, size);
    Matches matches = {0};
    CHECK(find_all(copy, size, needles, 2, &common, &matches) == 0);
    free(copy);
    size_t used = 0;
    for (size_t end = 1; end <= size; end++)
        for (size_t i = 0; i < 2; i++)
            if (end >= needles[i].length && !memcmp(data + end - needles[i].length, needles[i].bytes, needles[i].length)) {
                CHECK(used < matches.used && matches.at[used].end == end && matches.at[used].needle == i);
                used++;
            }
    CHECK(used == matches.used);
    free(matches.at);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 4)
        return 0;
    const Dialect *dialect = dialects[data[0] % 3];
    size_t limit = limits[data[1] % (sizeof limits / sizeof *limits)];
    uint32_t seed = data[2] | (uint32_t)data[3] << 8;
    const size_t parts[] = {1, 7, 70, 1000};
    data += 4;
    size -= 4;
    check_search(data, size, seed);
    Output whole = {0};
    const char *state = lex(dialect, limit, data, size, 0, 0, &whole);
    check_places(&whole, data, size, limit);
    for (size_t i = seed & 1; i < sizeof parts / sizeof *parts; i += 2) {
        Output cut = {0};
        CHECK(strcmp(lex(dialect, limit, data, size, parts[i], seed, &cut), state) == 0);
        check_same(&whole, &cut);
        output_free(&cut);
    }
    output_free(&whole);
    return 0;
}
