/* libFuzzer target: pieces cover the stream, keep the sizes, and are the same however much is there at once.
 *
 * Input: sizes (3 bytes), thresholds (2 bytes), seed, then the stream; after each byte of it that is 0xff a
 * length follows, and the byte before is repeated so often, as blocks have 4096 bytes and inputs few. */
#include "kernel.h"

#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            abort(); \
        } \
    } while (0)

#define STREAM_LIMIT ((size_t)64 << 10)

typedef int (*CutFunction)(const unsigned char *, size_t, const unsigned char *, const Rule *, Pieces *);

static size_t
unfold(const uint8_t *data, size_t size, unsigned char *out)
{
    size_t used = 0;
    unsigned char last = 0;
    for (size_t i = 0; i < size && used < STREAM_LIMIT; i++) {
        if (data[i] == 0xff && i + 1 < size) {
            size_t length = (size_t)data[++i] * 257;
            length = length < STREAM_LIMIT - used ? length : STREAM_LIMIT - used;
            memset(out + used, last, length);
            used += length;
        }
        else {
            out[used++] = last = data[i];
        }
    }
    return used;
}

/* Cuts a copy of exactly `size` bytes, so that the sanitizer sees a read behind it. */
static size_t
cut_copy(CutFunction cut, const unsigned char *data, size_t size, const unsigned char *key, const Rule *rule, Pieces *out)
{
    unsigned char *copy = malloc(size ? size : 1);
    CHECK(copy != NULL);
    memcpy(copy, data, size);
    size_t before = out->used, covered = 0;
    CHECK(cut(copy, size, key, rule, out) == 0);
    free(copy);
    for (size_t i = before; i < out->used; i++) {
        CHECK(out->at[i] != 0);
        covered += (size_t)(out->at[i] < 0 ? -out->at[i] : out->at[i]);
    }
    CHECK(covered <= size && (!rule->final || covered == size));
    CHECK(rule->final || size - covered < rule->maximum);
    return covered;
}

/* As the chunker does: what is not decided is handed in again with `more` bytes behind it. */
static void
cut_in_parts(CutFunction cut, const unsigned char *data, size_t size, const unsigned char *key, Rule rule, size_t more, Pieces *out)
{
    size_t start = 0, seen = 0;
    do {
        seen = size - seen < more ? size : seen + more;
        rule.final = seen == size;
        start += cut_copy(cut, data + start, seen - start, key, &rule, out);
    } while (seen < size);
}

/* Holes that parts have cut in two become one again. */
static void
join_holes(Pieces *pieces)
{
    size_t used = 0;
    for (size_t i = 0; i < pieces->used; i++) {
        if (used && pieces->at[used - 1] < 0 && pieces->at[i] < 0)
            pieces->at[used - 1] += pieces->at[i];
        else
            pieces->at[used++] = pieces->at[i];
    }
    pieces->used = used;
}

static void
check_pieces(const Pieces *pieces, const unsigned char *data, const Rule *rule)
{
    for (size_t i = 0; i < pieces->used; i++) {
        int64_t piece = pieces->at[i];
        size_t length = (size_t)(piece < 0 ? -piece : piece);
        if (piece < 0)
            CHECK(all_zero(data, length) && (i == 0 || pieces->at[i - 1] > 0));
        else
            CHECK(length <= rule->maximum);
        data += length;
    }
}

static void
check(CutFunction cut, const unsigned char *data, size_t size, const unsigned char *key, Rule rule, size_t more)
{
    Pieces whole = {0}, parts = {0};
    rule.final = 1;
    cut_copy(cut, data, size, key, &rule, &whole);
    check_pieces(&whole, data, &rule);
    cut_in_parts(cut, data, size, key, rule, more, &parts);
    join_holes(&parts);
    CHECK(whole.used == parts.used);
    CHECK(whole.used == 0 || memcmp(whole.at, parts.at, whole.used * sizeof *whole.at) == 0);
    free(whole.at);
    free(parts.at);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static unsigned char stream[STREAM_LIMIT], key[ALIGNED_KEY];
    if (size < 6)
        return 0;
    uint64_t random = data[5];
    for (size_t i = 0; i < sizeof key; i++) {
        random = random * 6364136223846793005 + 1442695040888963407;
        key[i] = (unsigned char)(random >> 56);
    }
    Rule rule = {.strict = UINT64_C(1) << (data[3] % 64), .loose = UINT64_C(1) << (data[4] % 64)};
    size_t length = unfold(data + 6, size - 6, stream);
    size_t more = 1 + length / 32 + (size_t)data[5] * 41; /* few parts: each is copied */

    rule.minimum = GEAR_WINDOW + data[0];
    rule.average = rule.minimum + data[1] * (size_t)4;
    rule.maximum = rule.average + data[2] * (size_t)16;
    check(cut_gear, stream, length, key, rule, more);

    rule.minimum = BLOCK * (size_t)(1 + data[0] % 4);
    rule.average = rule.minimum + BLOCK * (size_t)(data[1] % 4);
    rule.maximum = rule.average + BLOCK * (size_t)(data[2] % 4);
    check(cut_aligned, stream, length, key, rule, more);

    NhFunction fast = nh_for_this_machine();
    for (size_t at = 0; at + BLOCK <= length; at += BLOCK)
        CHECK(fast(stream + at, key) == nh_portable(stream + at, key));
    return 0;
}
