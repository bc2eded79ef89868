/* The loops of holdfast.repo.chunks.chunker, which documents the rules; tests/support/chunker_twin.py says
 * the same in plain Python and must agree in every case.
 *
 * Nothing here knows a key derivation or a default: keys, sizes and thresholds come from chunker.py.
 * The results are part of the repository format in effect (other cuts end deduplication with old
 * snapshots), so every value is defined for any machine: words are little-endian, arithmetic is
 * unsigned and wraps.
 *
 * aligned.c   cuts behind blocks, by a keyed hash of the block
 * gear.c      cuts anywhere, by a rolling hash
 * _kernel.c   the Python module; only it knows of Python: sanitizers and fuzzer build the rest alone
 */
#ifndef HOLDFAST_KERNEL_H
#define HOLDFAST_KERNEL_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define BLOCK 4096       /* bytes: page of guests' file systems, the grain of aligned cuts */
#define GEAR_WINDOW 64   /* bytes: a 64-bit gear hash shifts a byte out after 64 steps */
#define NH_KEY BLOCK     /* bytes of NH key: as long as the message */
#define ALIGNED_KEY (NH_KEY + 3 * 8)
#define GEAR_KEY (256 * 8)

#pragma GCC visibility push(hidden)

/* A growing array, so that memory follows what was found: lengths in bytes, those of holes negative. */
typedef struct {
    int64_t *at;
    size_t used, room;
} Pieces;

typedef struct {
    size_t minimum, average, maximum; /* bytes */
    uint64_t strict, loose;
    int final;
} Rule;

typedef uint64_t (*NhFunction)(const unsigned char *block, const unsigned char *key);

/* Both: 0, or -1 when out of memory. Bytes at the end that do not decide a piece yet are left out unless
 * `final`. Rule.minimum is at least BLOCK, for cut_gear GEAR_WINDOW. */
int cut_aligned(const unsigned char *data, size_t size, const unsigned char *key, const Rule *rule, Pieces *out);
int cut_gear(const unsigned char *data, size_t size, const unsigned char *key, const Rule *rule, Pieces *out);

int pieces_add(Pieces *pieces, int64_t piece);
int all_zero(const unsigned char *p, size_t n);
NhFunction nh_for_this_machine(void);
uint64_t nh_portable(const unsigned char *block, const unsigned char *key);
uint64_t block_hash(NhFunction nh, const unsigned char *block, const unsigned char *key);

#pragma GCC visibility pop

static inline uint64_t
load64(const unsigned char *p)
{
    uint64_t w;
    memcpy(&w, p, sizeof w);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    w = __builtin_bswap64(w);
#endif
    return w;
}

#endif
