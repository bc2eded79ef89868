/* The cutting loops of holdfast.repo.chunks.chunker, which documents the rules; tests/support/cutter_twin.py says
 * the same in plain Python and must agree in every case.
 *
 * Nothing here knows a key derivation or a default: keys, sizes and thresholds come from cutter.py.
 * The results are part of the repository format in effect (other cuts end deduplication with old
 * snapshots), so every value is defined for any machine: words are little-endian, arithmetic is
 * unsigned and wraps.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 4096       /* bytes: page of guests' file systems, the grain of aligned cuts */
#define GEAR_WINDOW 64   /* bytes: a 64-bit gear hash shifts a byte out after 64 steps */
#define NH_KEY BLOCK     /* bytes of NH key: as long as the message */
#define ALIGNED_KEY (NH_KEY + 3 * 8)
#define GEAR_KEY (256 * 8)
#define GIL_WORTH 16384  /* bytes: below this the work is shorter than giving the GIL away and back */

#if defined(__x86_64__) && defined(__GNUC__)
#define HAVE_AVX2_PATH 1
#include <immintrin.h>
#endif

/* ---- words ------------------------------------------------------------------------------- */

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

static int
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

/* ---- pieces: a growing array, so that memory follows what was found ------------------------ */

typedef struct {
    int64_t *at;
    size_t used, room;
} Pieces;

static int
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

static PyObject *
pieces_to_list(const Pieces *pieces)
{
    PyObject *list = PyList_New((Py_ssize_t)pieces->used);
    if (list == NULL)
        return NULL;
    for (size_t i = 0; i < pieces->used; i++) {
        PyObject *piece = PyLong_FromLongLong(pieces->at[i]);
        if (piece == NULL || PyList_SetItem(list, (Py_ssize_t)i, piece) < 0) {
            Py_DECREF(list);
            return NULL;
        }
    }
    return list;
}

/* ---- aligned: keyed NH over whole blocks --------------------------------------------------- */

typedef uint64_t (*NhFunction)(const unsigned char *block, const unsigned char *key);

/* NH (Black, Halevi, Krawczyk, Krovetz, Rogaway: UMAC, CRYPTO 1999) over 512 pairs of 32-bit words. */
static uint64_t
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

static NhFunction
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
static inline uint64_t
block_hash(NhFunction nh, const unsigned char *block, const unsigned char *key)
{
    uint64_t x = nh(block, key) ^ load64(key + NH_KEY);
    x *= load64(key + NH_KEY + 8) | 1;
    x ^= x >> 32;
    x *= load64(key + NH_KEY + 16) | 1;
    return x;
}

typedef struct {
    size_t minimum, average, maximum; /* bytes */
    uint64_t strict, loose;
    int final;
} Rule;

static int
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
        if (all_zero(data + at, n)) {
            if (start < at && pieces_add(out, (int64_t)(at - start)) < 0)
                return -1;
            hole += n;
            at += n;
            start = at;
            continue;
        }
        if (hole) {
            if (pieces_add(out, -(int64_t)hole) < 0)
                return -1;
            hole = 0;
        }
        at += n;
        size_t length = at - start;
        if (n < BLOCK || length < rule->minimum)
            continue;
        if (length >= rule->maximum ||
            block_hash(nh, data + at - BLOCK, key) < (length < rule->average ? rule->strict : rule->loose)) {
            if (pieces_add(out, (int64_t)length) < 0)
                return -1;
            start = at;
        }
    }
    if (hole && pieces_add(out, -(int64_t)hole) < 0)
        return -1;
    if (rule->final && start < size && pieces_add(out, (int64_t)(size - start)) < 0)
        return -1;
    return 0;
}

/* ---- gear ------------------------------------------------------------------------------------ */

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

static int
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

/* ---- Python ---------------------------------------------------------------------------------- */

typedef int (*CutFunction)(const unsigned char *, size_t, const unsigned char *, const Rule *, Pieces *);

static PyObject *
cut(PyObject *args, const char *format, CutFunction function, Py_ssize_t key_size, Py_ssize_t grain)
{
    Py_buffer data, key;
    Py_ssize_t minimum, average, maximum;
    PyObject *strict, *loose, *result = NULL;
    Rule rule;

    if (!PyArg_ParseTuple(args, format, &data, &key, &minimum, &average, &maximum, &strict, &loose, &rule.final))
        return NULL;
    if (key.len != key_size) {
        PyErr_Format(PyExc_ValueError, "key of %zd bytes, not %zd", key.len, key_size);
        goto done;
    }
    if (minimum < grain || average < minimum || maximum < average) {
        PyErr_Format(PyExc_ValueError, "sizes must be %zd <= minimum <= average <= maximum", grain);
        goto done;
    }
    rule.minimum = (size_t)minimum;
    rule.average = (size_t)average;
    rule.maximum = (size_t)maximum;
    rule.strict = PyLong_AsUnsignedLongLong(strict);
    if (PyErr_Occurred())
        goto done;
    rule.loose = PyLong_AsUnsignedLongLong(loose);
    if (PyErr_Occurred())
        goto done;

    Pieces pieces = {NULL, 0, 0};
    int failed;
    Py_BEGIN_ALLOW_THREADS
    failed = function(data.buf, (size_t)data.len, key.buf, &rule, &pieces);
    Py_END_ALLOW_THREADS
    result = failed ? PyErr_NoMemory() : pieces_to_list(&pieces);
    free(pieces.at);
done:
    PyBuffer_Release(&data);
    PyBuffer_Release(&key);
    return result;
}

static PyObject *
py_cut_aligned(PyObject *module, PyObject *args)
{
    (void)module;
    return cut(args, "y*y*nnnOOp:cut_aligned", cut_aligned, ALIGNED_KEY, BLOCK);
}

static PyObject *
py_cut_gear(PyObject *module, PyObject *args)
{
    (void)module;
    return cut(args, "y*y*nnnOOp:cut_gear", cut_gear, GEAR_KEY, GEAR_WINDOW);
}

static PyObject *
hash_one(PyObject *args, const char *format, NhFunction nh)
{
    Py_buffer block, key;
    PyObject *result = NULL;
    if (!PyArg_ParseTuple(args, format, &block, &key))
        return NULL;
    if (block.len != BLOCK || key.len != ALIGNED_KEY)
        PyErr_Format(PyExc_ValueError, "block of %zd bytes, key of %zd, not %d and %d", block.len, key.len,
                     BLOCK, ALIGNED_KEY);
    else
        result = PyLong_FromUnsignedLongLong(block_hash(nh, block.buf, key.buf));
    PyBuffer_Release(&block);
    PyBuffer_Release(&key);
    return result;
}

static PyObject *
py_block_hash(PyObject *module, PyObject *args)
{
    (void)module;
    return hash_one(args, "y*y*:block_hash", nh_for_this_machine());
}

static PyObject *
py_block_hash_portable(PyObject *module, PyObject *args)
{
    (void)module;
    return hash_one(args, "y*y*:block_hash_portable", nh_portable);
}

static PyObject *
py_is_zero(PyObject *module, PyObject *args)
{
    Py_buffer data;
    int zero;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*:is_zero", &data))
        return NULL;
    if (data.len < GIL_WORTH) {
        zero = all_zero(data.buf, (size_t)data.len);
    }
    else {
        Py_BEGIN_ALLOW_THREADS
        zero = all_zero(data.buf, (size_t)data.len);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&data);
    return PyBool_FromLong(zero);
}

static PyMethodDef methods[] = {
    {"cut_aligned", py_cut_aligned, METH_VARARGS,
     "cut_aligned(data, key, minimum, average, maximum, strict, loose, final, /) -> list[int]"},
    {"cut_gear", py_cut_gear, METH_VARARGS,
     "cut_gear(data, key, minimum, average, maximum, strict, loose, final, /) -> list[int]"},
    {"block_hash", py_block_hash, METH_VARARGS, "block_hash(block, key, /) -> int"},
    {"block_hash_portable", py_block_hash_portable, METH_VARARGS,
     "block_hash_portable(block, key, /) -> int: the same value without vector instructions"},
    {"is_zero", py_is_zero, METH_VARARGS, "is_zero(data, /) -> bool"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_kernel", .m_doc = "Cutting loops; see holdfast.repo.chunks.chunker.",
    .m_size = 0,           .m_methods = methods, .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__kernel(void)
{
    return PyModuleDef_Init(&definition);
}
