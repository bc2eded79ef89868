/* Vector loops over the bulk of a dump. Each only goes over bytes that no rule asks for: without vector
 * instructions the automaton finds the same, byte by byte. */
#include "lexer.h"

#include <stdlib.h>

#if defined(__SSE2__)
#include <emmintrin.h>

static inline __m128i
load(const unsigned char *p)
{
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

/* ---- rows of INSERT in blocks of 64 bytes -------------------------------------------------------------- */

typedef struct {
    __m128i quote, backslash, delimiter, name, dash, slash, star, small, one, other, first, second, mask;
} Needles;

/* One bit a byte. */
typedef struct {
    uint64_t quotes, backslashes;
    uint64_t special; /* what could matter outside of strings */
} Block;

static inline Needles
needles_for(const Lexer *x)
{
#define ALL(byte) _mm_set1_epi8((char)(byte))
    return (Needles){
        .quote = ALL('\''), .backslash = ALL('\\'), .delimiter = ALL(x->delimiter[0]), .name = ALL('"'),
        .dash = ALL('-'), .slash = ALL('/'), .star = ALL('*'), .small = ALL(0x20),
        .one = load(x->dialect->stops[0].bytes), .other = load(x->dialect->stops[1].bytes),
        .first = load(x->dialect->pair_stop[0].bytes), /* no byte is 0 once `small` is in it */
        .second = load(x->dialect->pair_stop[1].bytes), .mask = load(x->dialect->pair_stop[2].bytes),
    };
#undef ALL
}

static inline uint64_t
mask(__m128i v)
{
    return (uint64_t)(uint32_t)_mm_movemask_epi8(v);
}

/* Looks at one byte behind the block too. */
static inline Block
look_at(const unsigned char *p, const Needles *n, int backslashes)
{
    Block block = {0, 0, 0};
    for (int i = 0; i < BLOCK_SIZE; i += 16) {
        __m128i v = load(p + i);
        __m128i next = load(p + i + 1);
        __m128i s = _mm_or_si128(_mm_cmpeq_epi8(v, n->delimiter), _mm_cmpeq_epi8(v, n->name));
        s = _mm_or_si128(s, _mm_or_si128(_mm_cmpeq_epi8(v, n->one), _mm_cmpeq_epi8(v, n->other)));
        s = _mm_or_si128(s, _mm_and_si128(_mm_cmpeq_epi8(v, n->dash), _mm_cmpeq_epi8(next, n->dash)));
        s = _mm_or_si128(s, _mm_and_si128(_mm_cmpeq_epi8(v, n->slash), _mm_cmpeq_epi8(next, n->star)));
        s = _mm_or_si128(s, _mm_and_si128(_mm_cmpeq_epi8(_mm_or_si128(v, n->small), n->first),
                                          _mm_cmpeq_epi8(_mm_and_si128(next, n->mask), n->second)));
        block.quotes |= mask(_mm_cmpeq_epi8(v, n->quote)) << i;
        block.special |= mask(s) << i;
        if (backslashes)
            block.backslashes |= mask(_mm_cmpeq_epi8(v, n->backslash)) << i;
    }
    return block;
}

/* The bytes that a backslash stands before; *pending: whether one stands before the next block. */
static inline uint64_t
escaped_bytes(uint64_t backslashes, uint64_t *pending)
{
    uint64_t escaped = *pending, rest = backslashes & ~*pending;
    *pending = 0;
    while (rest) {
        uint64_t bit = rest & -rest;
        escaped |= bit << 1;
        *pending = bit >> 63;
        rest &= ~(bit | bit << 1);
    }
    return escaped;
}

/* From each opening quote to before its closing one; `within` is all ones when a string is open. */
static inline uint64_t
string_bytes(uint64_t quotes, uint64_t within)
{
    for (int shift = 1; shift < 64; shift *= 2)
        quotes ^= quotes << shift;
    return quotes ^ within;
}

/* Goes over rows as long as nothing but '..' strings and harmless bytes come. A running exclusive or of the
 * quotes that are not escaped says what is within a string; whatever else could matter and is outside of
 * strings stops it (technique: Langdale and Lemire, "Parsing gigabytes of JSON per second", VLDB Journal
 * 2019). Only where `in_blocks`. */
void
skip_blocks(Lexer *x, Cursor *c)
{
    const unsigned char *p = c->p;
    const Needles needles = needles_for(x);
    int backslashes = x->backslashes;
    uint64_t within = x->within.inside == QUOTED ? ~(uint64_t)0 : 0;
    uint64_t pending = 0; /* 1: the next block's first byte is escaped */
    while (c->end - p > BLOCK_SIZE) {
        Block block = look_at(p, &needles, backslashes);
        uint64_t escaped = escaped_bytes(block.backslashes, &pending);
        uint64_t strings = string_bytes(block.quotes & ~escaped, within);
        uint64_t special = (block.special | block.backslashes) & ~strings;
        if (special) {
            p += __builtin_ctzll(special);
            within = pending = 0;
            break;
        }
        within = strings >> 63 ? ~(uint64_t)0 : 0;
        p += BLOCK_SIZE;
    }
    if (within) {
        x->within.inside = QUOTED;
        x->within.quote = '\'';
        x->within.escapes = backslashes;
        p += pending; /* there is one more: a block is taken only when a byte follows it */
    }
    else {
        x->within.inside = PLAIN;
        /* Back to where the number or word here began: whether $ opens a quote depends on that. */
        if (x->dialect->dollar_quotes && x->traits[*p] & WORD)
            while (p > c->p && x->traits[p[-1]] & WORD)
                p--;
    }
    c->p = p;
}

#else

void
skip_blocks(Lexer *x, Cursor *c)
{
    (void)x, (void)c;
}

#endif

/* ---- byte strings ----------------------------------------------------------------------------------------- */

#if defined(__SSE2__)
/* One bit for each of 16 places where three bytes of a needle stand: its first, one at `middle`, one at `last`. */
static inline unsigned
places_at(const unsigned char *p, const __m128i bytes[3], size_t middle, size_t last)
{
    __m128i same = _mm_and_si128(_mm_cmpeq_epi8(load(p), bytes[0]), _mm_cmpeq_epi8(load(p + middle), bytes[1]));
    return (unsigned)_mm_movemask_epi8(_mm_and_si128(same, _mm_cmpeq_epi8(load(p + last), bytes[2])));
}
#endif

/* Where the needle begins at or after p, or NULL. Inline: known needles become constants. */
static inline __attribute__((always_inline)) const unsigned char *
find(const unsigned char *p, const unsigned char *end, const Needle *needle)
{
    const unsigned char *bytes = needle->bytes;
    size_t length = needle->length;
#if defined(__SSE2__)
    /* Three bytes: marks begin with a newline, which alone is in every row. */
    size_t middle = length / 2, last = length - 1;
    const __m128i three[3] = {
        _mm_set1_epi8((char)bytes[0]), _mm_set1_epi8((char)bytes[middle]), _mm_set1_epi8((char)bytes[last])};
    for (; (size_t)(end - p) >= length + 31; p += 32) {
        uint32_t places = places_at(p, three, middle, last) | places_at(p + 16, three, middle, last) << 16;
        for (; __builtin_expect(places != 0, 0); places &= places - 1) {
            const unsigned char *place = p + __builtin_ctz(places);
            if (memcmp(place, bytes, length) == 0)
                return place;
        }
    }
#endif
    while ((size_t)(end - p) >= length && (p = memchr(p, bytes[0], (size_t)(end - p) - length + 1)) != NULL) {
        if (memcmp(p, bytes, length) == 0)
            return p;
        p++;
    }
    return NULL;
}

/* The first newline with \. behind it, or NULL. */
const unsigned char *
find_copy_end(const unsigned char *p, const unsigned char *end)
{
    static const Needle closing = {(const unsigned char *)"\n\\.", 3};
    return find(p, end, &closing);
}

static int
add(Matches *matches, Match match)
{
    if (matches->used == matches->room) {
        size_t room = matches->room ? matches->room * 2 : 16;
        Match *larger = room > SIZE_MAX / sizeof *larger ? NULL : realloc(matches->at, room * sizeof *larger);
        if (larger == NULL)
            return -1;
        matches->at = larger;
        matches->room = room;
    }
    matches->at[matches->used++] = match;
    return 0;
}

static int
by_end(const void *a, const void *b)
{
    const Match *one = a, *other = b;
    if (one->end != other->end)
        return one->end < other->end ? -1 : 1;
    return (one->needle > other->needle) - (one->needle < other->needle);
}

int
find_all(const unsigned char *data, size_t size, const Needle *needles, size_t count, const Needle *common, Matches *out)
{
    const unsigned char *end = data + size;
    if (common->length && find(data, end, common) == NULL)
        return 0;
    for (size_t i = 0; i < count; i++) {
        const unsigned char *p = data;
        while ((p = find(p, end, &needles[i])) != NULL) {
            if (add(out, (Match){(size_t)(p - data) + needles[i].length, i}) < 0)
                return -1;
            p++;
        }
    }
    if (out->used > 1)
        qsort(out->at, out->used, sizeof *out->at, by_end);
    return 0;
}
