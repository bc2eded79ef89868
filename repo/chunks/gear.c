/* Cuts anywhere: a rolling hash over the last 64 bytes. */
#include "kernel.h"

typedef struct {
    uint64_t one[256]; /* the table */
    uint64_t two[256]; /* the table, shifted left by one: for the first byte of a pair */
} GearTable;

/* First i in [at, end) where the hash of bytes up to and including i is under the threshold; else end.
 * Two bytes a step (FastCDC, IEEE TPDS 2020): the chain of dependent operations is half as long. */
static inline size_t
gear_scan(const unsigned char *p, size_t at, size_t end, uint64_t *hash, uint64_t under, const GearTable *table)
{
    uint64_t h = *hash;
    for (; end - at >= 8; at += 8) {
#define PAIR(i)                                                              \
    do {                                                                     \
        uint64_t first = (h << 1) + table->one[p[at + (i)]];                 \
        h = (h << 2) + table->two[p[at + (i)]] + table->one[p[at + (i) + 1]]; \
        if (first < under)                                                   \
            return at + (i);                                                 \
        if (h < under)                                                       \
            return at + (i) + 1;                                             \
    } while (0)
        PAIR(0);
        PAIR(2);
        PAIR(4);
        PAIR(6);
#undef PAIR
    }
    for (; at < end; at++) {
        h = (h << 1) + table->one[p[at]];
        if (h < under)
            return at;
    }
    *hash = h;
    return end;
}

/* Length of the chunk that starts at p, or 0 when the n bytes there do not decide it. */
static size_t
gear_chunk(const unsigned char *p, size_t n, const Rule *rule, const GearTable *table)
{
    if (n < rule->minimum)
        return 0;
    size_t end = n < rule->maximum ? n : rule->maximum;
    size_t middle = end < rule->average - 1 ? end : rule->average - 1;
    size_t at = rule->minimum - 1;
    uint64_t hash = 0;
    for (size_t i = rule->minimum - GEAR_WINDOW; i < at; i++)
        hash = (hash << 1) + table->one[p[i]];
    if ((at = gear_scan(p, at, middle, &hash, rule->strict, table)) < middle)
        return at + 1;
    if ((at = gear_scan(p, at, end, &hash, rule->loose, table)) < end)
        return at + 1;
    return end == rule->maximum ? end : 0;
}

int
cut_gear(const unsigned char *data, size_t size, const unsigned char *key, const Rule *rule, Pieces *out)
{
    GearTable table;
    for (int i = 0; i < 256; i++) {
        table.one[i] = load64(key + 8 * i);
        table.two[i] = table.one[i] << 1;
    }
    size_t start = 0;
    while (start < size) {
        size_t length = gear_chunk(data + start, size - start, rule, &table);
        if (length == 0) {
            if (!rule->final)
                break;
            length = size - start;
        }
        if (pieces_add(out, (int64_t)length) < 0)
            return -1;
        start += length;
    }
    return 0;
}
