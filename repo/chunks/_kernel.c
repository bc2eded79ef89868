/* The Python module; see _kernel.pyi and kernel.h. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdlib.h>

#include "kernel.h"

#define GIL_WORTH 16384  /* bytes: below this the work is shorter than giving the GIL away and back */

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
