/* Cuts behind blocks: holes, and keyed NH over whole blocks. */
#include "kernel.h"

#include <stdlib.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define HAVE_AVX2_PATH 1
#include <immintrin.h>
#endif

int
pieces_add(Pieces *pieces, int64_t piece)
{
    if (pieces->used == pieces->room) {
        size_t room = pieces->room ? pieces->room * 2 : 256;
        int64_t *at;
        if (room > SIZE_MAX / sizeof *at)
            return -1;
        at = realloc(pieces->at, room * sizeof *at); /* PyMem_Raw* is not in the 3.11 limited API */
        if (at == NULL)
            return -1;
        pieces->at = at;
        pieces->room = room;
    }
    pieces->at[pieces->used++] = piece;
    return 0;
}

int
all_zero(const unsigned char *p, size_t n)
{
    /* 256 bytes a step: long enough to vectorise, short enough that data is told apart at once. */
    while (n >= 256) {
        uint64_t any = 0;
        for (int i = 0; i < 32; i++) {
            uint64_t w;
            memcpy(&w, p + 8 * i, sizeof w);
            any |= w;
        }
        if (any)
            return 0;
        p += 256;
        n -= 256;
    }
    while (n--)
        if (*p++)
            return 0;
    return 1;
}

/* NH (Black, Halevi, Krawczyk, Krovetz, Rogaway: UMAC, CRYPTO 1999) over 512 pairs of 32-bit words. */
uint64_t
nh_portable(const unsigned char *block, const unsigned char *key)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < BLOCK; i += 8) {
        uint64_t m = load64(block + i), k = load64(key + i);
        uint32_t low = (uint32_t)m + (uint32_t)k;
        uint32_t high = (uint32_t)(m >> 32) + (uint32_t)(k >> 32);
        sum += (uint64_t)low * high;
    }
    return sum;
}

#ifdef HAVE_AVX2_PATH
__attribute__((target("avx2"))) static uint64_t
nh_avx2(const unsigned char *block, const unsigned char *key)
{
    __m256i sum0 = _mm256_setzero_si256(), sum1 = sum0, sum2 = sum0, sum3 = sum0;
#define STEP(sum, at)                                                                                 \
    do {                                                                                              \
        __m256i s = _mm256_add_epi32(_mm256_loadu_si256((const __m256i *)(const void *)(block + (at))), \
                                     _mm256_loadu_si256((const __m256i *)(const void *)(key + (at)))); \
        sum = _mm256_add_epi64(sum, _mm256_mul_epu32(s, _mm256_srli_epi64(s, 32)));                   \
    } while (0)
    for (size_t i = 0; i < BLOCK; i += 128) {
        STEP(sum0, i);
        STEP(sum1, i + 32);
        STEP(sum2, i + 64);
        STEP(sum3, i + 96);
    }
#undef STEP
    uint64_t lanes[4];
    sum0 = _mm256_add_epi64(_mm256_add_epi64(sum0, sum1), _mm256_add_epi64(sum2, sum3));
    _mm256_storeu_si256((__m256i *)(void *)lanes, sum0);
    return lanes[0] + lanes[1] + lanes[2] + lanes[3];
}
#endif

NhFunction
nh_for_this_machine(void)
{
#ifdef HAVE_AVX2_PATH
    if (__builtin_cpu_supports("avx2"))
        return nh_avx2;
#endif
    return nh_portable;
}

/* NH alone is universal but not uniform (a block of all ones is no random number); two keyed odd
 * multiplications spread it over 64 bits, of which the thresholds look at the top. */
uint64_t
block_hash(NhFunction nh, const unsigned char *block, const unsigned char *key)
{
    uint64_t x = nh(block, key) ^ load64(key + NH_KEY);
    x *= load64(key + NH_KEY + 8) | 1;
    x ^= x >> 32;
    x *= load64(key + NH_KEY + 16) | 1;
    return x;
}

/* The chunk [start, end), if it has bytes. */
static int
add_chunk(Pieces *out, size_t start, size_t end)
{
    return start < end ? pieces_add(out, (int64_t)(end - start)) : 0;
}

/* The hole of *length bytes, if it has any; none is open afterwards. */
static int
add_hole(Pieces *out, size_t *length)
{
    size_t hole = *length;
    *length = 0;
    return hole ? pieces_add(out, -(int64_t)hole) : 0;
}

/* Whether a chunk of this length ends behind this block, which is its last. */
static inline int
ends_chunk(NhFunction nh, const unsigned char *block, const unsigned char *key, const Rule *rule, size_t length)
{
    if (length < rule->minimum)
        return 0;
    return length >= rule->maximum ||
           block_hash(nh, block, key) < (length < rule->average ? rule->strict : rule->loose);
}

int
cut_aligned(const unsigned char *data, size_t size, const unsigned char *key, const Rule *rule, Pieces *out)
{
    NhFunction nh = nh_for_this_machine();
    size_t start = 0; /* of the chunk that is open; start == at: none is */
    size_t hole = 0;  /* bytes of the hole that ends at `at` */
    size_t at = 0;
    while (at < size) {
        size_t n = size - at < BLOCK ? size - at : BLOCK;
        if (n < BLOCK && !rule->final)
            break;
        const unsigned char *block = data + at;
        if (all_zero(block, n)) {
            if (add_chunk(out, start, at) < 0)
                return -1;
            hole += n;
            at += n;
            start = at;
            continue;
        }
        if (add_hole(out, &hole) < 0)
            return -1;
        at += n;
        if (n == BLOCK && ends_chunk(nh, block, key, rule, at - start)) {
            if (add_chunk(out, start, at) < 0)
                return -1;
            start = at;
        }
    }
    if (add_hole(out, &hole) < 0)
        return -1;
    return rule->final ? add_chunk(out, start, size) : 0;
}
