/* The Python module: Lexer and find_all, see _lexer.pyi. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdlib.h>

#include "lexer.h"

#define GIL_WORTH 16384      /* bytes: below this the work is shorter than giving the GIL away and back */

typedef struct {
    PyObject_HEAD
    int busy, finished, failed;
    Lexer lexer;
} LexerObject;

static const Dialect *const dialects[] = {&postgresql_dialect, &mysql_dialect, &sqlite_dialect};

static PyObject *
event_to_tuple(const Event *e, const Buffer *texts)
{
    const char *text = e->length ? (const char *)texts->bytes + e->text : "";
    PyObject *items[] = {
        PyLong_FromLong(e->kind),
        PyLong_FromLongLong(e->start),
        PyLong_FromLongLong(e->end),
        PyBytes_FromStringAndSize(text, (Py_ssize_t)e->length),
    };
    enum { COUNT = sizeof items / sizeof *items };
    PyObject *tuple = PyTuple_New(COUNT);
    int complete = tuple != NULL;
    for (Py_ssize_t i = 0; i < COUNT; i++) {
        complete = complete && items[i] != NULL;
        if (tuple == NULL)
            Py_XDECREF(items[i]);
        else
            PyTuple_SetItem(tuple, i, items[i]); /* takes the reference */
    }
    if (!complete)
        Py_CLEAR(tuple);
    return tuple;
}

static PyObject *
events_to_list(const Output *out)
{
    PyObject *list = PyList_New((Py_ssize_t)out->used);
    for (size_t i = 0; list != NULL && i < out->used; i++) {
        PyObject *event = event_to_tuple(&out->events[i], &out->text);
        if (event == NULL || PyList_SetItem(list, (Py_ssize_t)i, event) < 0)
            Py_CLEAR(list);
    }
    return list;
}

static int
usable(const LexerObject *self)
{
    if (self->busy)
        PyErr_SetString(PyExc_RuntimeError, "the lexer is in use by another thread");
    else if (self->failed)
        PyErr_SetString(PyExc_RuntimeError, "the lexer ran out of memory before");
    else if (self->finished)
        PyErr_SetString(PyExc_ValueError, "the stream has ended");
    else
        return 1;
    return 0;
}

/* What a feed found, which leaves the lexer. */
static PyObject *
take_events(LexerObject *self, int status)
{
    self->failed = status < 0;
    PyObject *list = status < 0 ? PyErr_NoMemory() : events_to_list(&self->lexer.out);
    output_clear(&self->lexer.out);
    return list;
}

static PyObject *
py_feed(PyObject *object, PyObject *argument)
{
    LexerObject *self = (LexerObject *)object;
    Py_buffer data;
    int status;
    if (!usable(self) || PyObject_GetBuffer(argument, &data, PyBUF_SIMPLE) < 0)
        return NULL;
    self->busy = 1;
    if (data.len < GIL_WORTH) {
        status = lexer_feed(&self->lexer, data.buf, (size_t)data.len);
    }
    else {
        Py_BEGIN_ALLOW_THREADS
        status = lexer_feed(&self->lexer, data.buf, (size_t)data.len);
        Py_END_ALLOW_THREADS
    }
    self->busy = 0;
    PyBuffer_Release(&data);
    return take_events(self, status);
}

static PyObject *
py_finish(PyObject *object, PyObject *unused)
{
    LexerObject *self = (LexerObject *)object;
    (void)unused;
    if (!usable(self))
        return NULL;
    PyObject *list = take_events(self, lexer_finish(&self->lexer));
    self->finished = 1;
    return list;
}

static PyObject *
py_state(PyObject *self, void *unused)
{
    (void)unused;
    return PyUnicode_FromString(lexer_state(&((LexerObject *)self)->lexer));
}

static PyObject *
py_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"dialect", "text_limit", NULL};
    int dialect;
    Py_ssize_t text_limit = 1 << 20;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "i|n:Lexer", names, &dialect, &text_limit))
        return NULL;
    if (dialect < POSTGRESQL || dialect > SQLITE)
        return PyErr_Format(PyExc_ValueError, "no dialect %d", dialect);
    if (text_limit < SETTING_LIMIT || text_limit > (Py_ssize_t)TEXT_LIMIT_LARGEST)
        return PyErr_Format(PyExc_ValueError, "text_limit must be %d to %zd bytes", SETTING_LIMIT,
                            (Py_ssize_t)TEXT_LIMIT_LARGEST);
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    LexerObject *self = (LexerObject *)allocate(type, 0); /* all zero */
    if (self != NULL)
        lexer_init(&self->lexer, dialects[dialect - POSTGRESQL], (size_t)text_limit);
    return (PyObject *)self;
}

static void
py_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    lexer_free(&((LexerObject *)self)->lexer);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyMethodDef lexer_methods[] = {
    {"feed", py_feed, METH_O, "feed(data, /) -> list[tuple[int, int, int, bytes]]"},
    {"finish", py_finish, METH_NOARGS, "finish() -> list[tuple[int, int, int, bytes]]"},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef lexer_members[] = {
    {"state", py_state, NULL, "What is open, \"\" between pieces.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot lexer_slots[] = {
    {Py_tp_new, py_new},            {Py_tp_dealloc, py_dealloc},     {Py_tp_methods, lexer_methods},
    {Py_tp_getset, lexer_members},  {Py_tp_doc, "See _lexer.pyi."},  {0, NULL},
};

static PyType_Spec lexer_spec = {
    .name = "holdfast.formats.dumps.lexer._lexer.Lexer",
    .basicsize = sizeof(LexerObject),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = lexer_slots,
};

/* ---- find_all ------------------------------------------------------------------------------------------ */

#define NEEDLES_LIMIT 16

/* The needles of a tuple of bytes, which must outlive them. -1 with an exception. */
static Py_ssize_t
take_needles(PyObject *tuple, Needle *needles)
{
    Py_ssize_t count = PyTuple_Size(tuple);
    if (count > NEEDLES_LIMIT) {
        PyErr_Format(PyExc_ValueError, "%zd byte strings to look for, not up to %d", count, NEEDLES_LIMIT);
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        char *bytes;
        Py_ssize_t length;
        if (PyBytes_AsStringAndSize(PyTuple_GetItem(tuple, i), &bytes, &length) < 0)
            return -1;
        if (length == 0) {
            PyErr_SetString(PyExc_ValueError, "an empty byte string is everywhere");
            return -1;
        }
        needles[i] = (Needle){(const unsigned char *)bytes, (size_t)length};
    }
    return count;
}

static PyObject *
matches_to_list(const Matches *matches)
{
    PyObject *list = PyList_New((Py_ssize_t)matches->used);
    for (size_t i = 0; list != NULL && i < matches->used; i++) {
        const Match *m = &matches->at[i];
        PyObject *match = Py_BuildValue("(nn)", (Py_ssize_t)m->end, (Py_ssize_t)m->needle);
        if (match == NULL || PyList_SetItem(list, (Py_ssize_t)i, match) < 0)
            Py_CLEAR(list);
    }
    return list;
}

static PyObject *
py_find_all(PyObject *module, PyObject *args)
{
    Needle needles[NEEDLES_LIMIT], common;
    Matches matches = {0};
    PyObject *tuple, *list = NULL;
    const char *common_bytes;
    Py_ssize_t common_length;
    Py_buffer data;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*O!y#:find_all", &data, &PyTuple_Type, &tuple, &common_bytes, &common_length))
        return NULL;
    common = (Needle){(const unsigned char *)common_bytes, (size_t)common_length};
    Py_ssize_t count = take_needles(tuple, needles);
    if (count >= 0) {
        int status;
        Py_BEGIN_ALLOW_THREADS
        status = find_all(data.buf, (size_t)data.len, needles, (size_t)count, &common, &matches);
        Py_END_ALLOW_THREADS
        list = status < 0 ? PyErr_NoMemory() : matches_to_list(&matches);
        free(matches.at);
    }
    PyBuffer_Release(&data);
    return list;
}

/* ---- the module ---------------------------------------------------------------------------------------- */

static PyMethodDef functions[] = {
    {"find_all", py_find_all, METH_VARARGS, "find_all(data, needles, common, /) -> list[tuple[int, int]]"},
    {NULL, NULL, 0, NULL},
};

static int
fill(PyObject *module)
{
    static const struct {
        const char *name;
        int value;
    } numbers[] = {
        {"POSTGRESQL", POSTGRESQL}, {"MYSQL", MYSQL}, {"SQLITE", SQLITE},         {"COMMENT", COMMENT},
        {"STATEMENT", STATEMENT},   {"META", META},   {"ROWS_BEGIN", ROWS_BEGIN}, {"ROWS_END", ROWS_END},
        {"COMMAND", COMMAND},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (PyModule_AddIntConstant(module, numbers[i].name, numbers[i].value) < 0)
            return -1;
    PyObject *type = PyType_FromModuleAndSpec(module, &lexer_spec, NULL);
    if (type == NULL)
        return -1;
    int status = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return status;
}

static struct PyModuleDef_Slot slots[] = {{Py_mod_exec, fill}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_lexer", .m_doc = "Pieces of SQL text; see _lexer.pyi.",
    .m_size = 0,           .m_methods = functions, .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__lexer(void)
{
    return PyModuleDef_Init(&definition);
}
