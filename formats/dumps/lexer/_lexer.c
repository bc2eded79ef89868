/* Where comments, statements, client lines and bulk rows stand in a dump written as SQL text.
 *
 * `_lexer.pyi` is the contract; tests/support/lexer_twin.py says the same in plain Python and must agree in
 * every case. The rules are those of the programs that read such dumps: psql (src/fe_utils/psqlscan.l),
 * the mysql client (add_line), sqlite3_complete.
 *
 * How it works: an automaton over bytes that asks for more when a decision needs bytes that are not
 * there yet. Those bytes (at most WINDOW) are kept and seen again together with what follows, so that
 * no decision depends on how the stream was cut into feeds. Memory: the text of the open piece (up to
 * the caller's limit), one lead, the window, and the events of one feed.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#define LEAD_LIMIT 65536     /* bytes of an INSERT before its rows */
#define TAG_LIMIT 1024       /* bytes of $tag$; psql has no limit, a hostile one would be kept whole */
#define DELIMITER_LIMIT 16   /* bytes; the mysql client takes 15 */
#define WORD_LIMIT 32        /* bytes that are told apart; no keyword here is longer */
#define SETTING_LIMIT 64     /* bytes of a SET standard_conforming_strings that is understood */
#define WINDOW (LEAD_LIMIT + TAG_LIMIT + 64)
#define GIL_WORTH 16384      /* bytes: below this the work is shorter than giving the GIL away and back */

enum { POSTGRESQL = 1, MYSQL = 2, SQLITE = 3 };
enum { COMMENT, STATEMENT, META, ROWS_BEGIN, ROWS_END };
enum { SPACE = 1, WORD = 2, WORD_START = 4 };                   /* traits of a byte */
enum { FAILED = -1, MORE = 0, GO = 1 };                         /* answers of a step */

typedef enum {
    NOTHING,       /* between pieces */
    LINES,         /* a run of line comments */
    BLOCK,         /* one comment in slash and star */
    CLIENT_LINE,
    CODE,          /* a statement */
    INSERT,        /* a statement of an open run of rows, behind its lead */
    BETWEEN,       /* an open run of rows, between two statements */
    COPY_LINE,     /* the rest of the line that COPY ... FROM stdin; stands on */
    COPY
} Piece;

typedef enum { PLAIN, IN_WORD, QUOTED, DOLLAR, LINE_COMMENT, BLOCK_COMMENT } Inside;
typedef enum { OTHER, INTO, DOT, FROM, SEMICOLON, END } Token; /* the last one that was no space or comment */
typedef enum { NO_LEAD, NAMES, COLUMNS } Lead;                  /* what an INSERT has shown so far */

typedef struct {
    int kind;
    int64_t start, end;
    size_t text, length; /* in Output.bytes */
} Event;

typedef struct {
    Event *events;
    size_t used, room;
    unsigned char *bytes;
    size_t bytes_used, bytes_room;
} Output;

typedef struct {
    PyObject_HEAD
    int dialect;
    size_t text_limit, lead_limit;
    unsigned char traits[256];
    unsigned char delimiter[DELIMITER_LIMIT];
    size_t delimiter_length;
    int backslashes; /* '..' has backslash escapes without a prefix */

    Piece piece;
    int64_t start; /* of the piece */
    unsigned char *text;
    size_t text_used, text_room;

    Inside inside;
    unsigned char quote;
    int escapes;
    uint64_t comments; /* depth */
    unsigned char tag[TAG_LIMIT];
    size_t tag_length;
    unsigned char word[WORD_LIMIT]; /* in capitals */
    size_t word_length;             /* WORD_LIMIT + 1 for any longer one */

    Token last;
    int words;       /* of the statement, up to 4 */
    char create[4];  /* first letters of CREATE, OR, REPLACE, FUNCTION, PROCEDURE among them */
    uint64_t parens, begins;
    Lead lead_state;
    int creating, trigger; /* SQLite: CREATE [TEMP] has been seen; CREATE TRIGGER has */
    int copying, copy_in;  /* it begins with COPY; FROM stdin has been seen */
    int executable;        /* within a comment that MySQL executes */

    unsigned char *lead;
    size_t lead_length, lead_room;
    int64_t rows_end; /* of the last whole statement of the run */
    int line_start;   /* COPY: the next byte begins a line */

    unsigned char *tail; /* seen but undecided; begins at `offset` of the stream */
    size_t tail_used, tail_room;
    int64_t offset;
    unsigned char previous; /* the byte before */
    int busy, finished, failed;
    Output out;
} Lexer;

typedef struct {
    const unsigned char *begin, *p, *end;
    const unsigned char *unsaved; /* from here on, the open piece's text is not in Lexer.text */
    int64_t base;                 /* offset of `begin` in the stream */
    int final;
} Cursor;

static inline int64_t
at(const Cursor *c, const unsigned char *p)
{
    return c->base + (p - c->begin);
}

/* ---- memory ------------------------------------------------------------------------------------ */

static int
reserve(unsigned char **bytes, size_t *room, size_t wanted)
{
    if (wanted <= *room)
        return 0;
    size_t size = *room ? *room : 256;
    while (size < wanted) {
        if (size > SIZE_MAX / 2)
            return -1;
        size *= 2;
    }
    unsigned char *larger = realloc(*bytes, size); /* PyMem_Raw* is not in the 3.11 limited API */
    if (larger == NULL)
        return -1;
    *bytes = larger;
    *room = size;
    return 0;
}

static int
save_text(Lexer *x, Cursor *c)
{
    size_t n = (size_t)(c->p - c->unsaved);
    if (n > x->text_limit - x->text_used)
        n = x->text_limit - x->text_used;
    if (reserve(&x->text, &x->text_room, x->text_used + n) < 0)
        return -1;
    if (n)
        memcpy(x->text + x->text_used, c->unsaved, n);
    x->text_used += n;
    c->unsaved = c->p;
    return 0;
}

/* ---- events ------------------------------------------------------------------------------------ */

static int
emit(Lexer *x, int kind, int64_t start, int64_t end, const unsigned char *a, size_t a_length,
     const unsigned char *b, size_t b_length)
{
    Output *out = &x->out;
    size_t length = a_length + b_length;
    if (out->used == out->room) {
        size_t room = out->room ? out->room * 2 : 64;
        Event *events = room > SIZE_MAX / sizeof *events ? NULL : realloc(out->events, room * sizeof *events);
        if (events == NULL)
            return FAILED;
        out->events = events;
        out->room = room;
    }
    if (reserve(&out->bytes, &out->bytes_room, out->bytes_used + length) < 0)
        return FAILED;
    if (a_length)
        memcpy(out->bytes + out->bytes_used, a, a_length);
    if (b_length)
        memcpy(out->bytes + out->bytes_used + a_length, b, b_length);
    out->events[out->used++] = (Event){kind, start, end, out->bytes_used, length};
    out->bytes_used += length;
    return GO;
}

static int
emit_piece(Lexer *x, const Cursor *c, int kind, int64_t end)
{
    size_t length = end - x->start < (int64_t)x->text_limit ? (size_t)(end - x->start) : x->text_limit;
    size_t saved = length < x->text_used ? length : x->text_used;
    return emit(x, kind, x->start, end, x->text, saved, c->unsaved, length - saved);
}

static int
emit_rows(Lexer *x, int kind, int64_t end)
{
    return emit(x, kind, x->start, end, x->lead, x->lead_length, NULL, 0);
}

static void
open_piece(Lexer *x, Cursor *c, Piece piece)
{
    x->piece = piece;
    x->start = at(c, c->p);
    x->text_used = 0;
    c->unsaved = c->p;
    x->inside = PLAIN;
    x->last = OTHER;
    x->words = 0;
    memset(x->create, 0, sizeof x->create);
    x->parens = x->begins = 0;
    x->lead_state = NO_LEAD;
    x->creating = x->trigger = x->copying = x->copy_in = x->executable = 0;
}

/* ---- what begins here? 1: this, 0: not this, -1: more bytes decide ------------------------------- */

static inline int
begins(const Cursor *c, const unsigned char *p, const void *what, size_t length)
{
    size_t n = (size_t)(c->end - p);
    if (n >= length)
        return memcmp(p, what, length) == 0;
    return memcmp(p, what, n) == 0 && !c->final ? -1 : 0;
}

static inline int
delimiter_at(const Lexer *x, const Cursor *c, const unsigned char *p)
{
    return *p == x->delimiter[0] ? begins(c, p, x->delimiter, x->delimiter_length) : 0;
}

static int
line_comment_at(const Lexer *x, const Cursor *c, const unsigned char *p)
{
    if (*p == '#')
        return x->dialect == MYSQL;
    int found = *p == '-' ? begins(c, p, "--", 2) : 0;
    if (found != 1 || x->dialect != MYSQL)
        return found;
    if (c->end - p > 2) /* MySQL: 5--1 is 6 */
        return p[2] <= ' ';
    return c->final ? 1 : -1;
}

static int
delimiter_command_at(const Cursor *c, const unsigned char *p)
{
    static const char command[] = "DELIMITER";
    for (size_t i = 0; i < sizeof command - 1; i++, p++) {
        if (p == c->end)
            return c->final ? 0 : -1;
        if ((*p & 0xdf) != command[i])
            return 0;
    }
    if (p == c->end)
        return c->final ? 0 : -1;
    return *p == ' ' || *p == '\t';
}

/* ---- words --------------------------------------------------------------------------------------- */

static inline int
is_word(const Lexer *x, const char *word)
{
    size_t length = strlen(word);
    return x->word_length == length && memcmp(x->word, word, length) == 0;
}

/* psql's rule for BEGIN ATOMIC ... END: CREATE [OR REPLACE] FUNCTION or PROCEDURE begins the statement. */
static void
count_begins(Lexer *x)
{
    const char *create = x->create;
    if (x->words < 4 && (is_word(x, "CREATE") || is_word(x, "OR") || is_word(x, "REPLACE") ||
                         is_word(x, "FUNCTION") || is_word(x, "PROCEDURE")))
        x->create[x->words] = (char)x->word[0];
    char kind = create[1] == 'O' && create[2] == 'R' ? create[3] : create[1];
    if (create[0] != 'C' || (kind != 'F' && kind != 'P') || x->parens)
        return;
    if (is_word(x, "BEGIN"))
        x->begins++;
    else if (is_word(x, "CASE") && x->begins)
        x->begins++;
    else if (is_word(x, "END") && x->begins)
        x->begins--;
}

static void
watch_trigger(Lexer *x, int first)
{
    if (first && is_word(x, "CREATE"))
        x->creating = 1;
    else if (x->creating && is_word(x, "TRIGGER"))
        x->trigger = 1, x->creating = 0;
    else if (x->creating && !is_word(x, "TEMP") && !is_word(x, "TEMPORARY"))
        x->creating = 0;
}

static int
open_rows(Lexer *x, Cursor *c)
{
    if (save_text(x, c) < 0 || reserve(&x->lead, &x->lead_room, x->text_used) < 0)
        return FAILED;
    memcpy(x->lead, x->text, x->text_used);
    x->lead_length = x->text_used;
    x->piece = INSERT;
    return emit_rows(x, ROWS_BEGIN, x->start);
}

static inline int
open_quoted(Lexer *x, Cursor *c, unsigned char closing, int escapes)
{
    x->inside = QUOTED;
    x->quote = closing;
    x->escapes = escapes;
    x->last = OTHER;
    c->p++;
    return GO;
}

/* The word of x is whole; c->p is behind it. */
static int
word_end(Lexer *x, Cursor *c)
{
    Token last = x->last;
    int first = at(c, c->p) - x->start == (int64_t)x->word_length; /* nothing before it, not even `(` */
    x->inside = PLAIN;
    x->last = OTHER;
    if (x->dialect == POSTGRESQL && is_word(x, "E") && c->p < c->end && *c->p == '\'') {
        x->lead_state = NO_LEAD;
        return open_quoted(x, c, '\'', 1);
    }
    if (x->piece == INSERT)
        return GO;
    if (x->dialect == POSTGRESQL) {
        count_begins(x);
        if (first)
            x->copying = is_word(x, "COPY");
        if (x->copying && !x->parens && last == FROM && is_word(x, "STDIN"))
            x->copy_in = 1;
    }
    else if (x->dialect == SQLITE) {
        watch_trigger(x, first);
    }
    if (first && (is_word(x, "INSERT") || (x->dialect != POSTGRESQL && is_word(x, "REPLACE"))))
        x->lead_state = NAMES;
    if (x->words < 4)
        x->words++;
    if (is_word(x, "INTO"))
        x->last = INTO;
    else if (is_word(x, "FROM"))
        x->last = FROM;
    else if (last == SEMICOLON && is_word(x, "END"))
        x->last = END;
    if (x->lead_state == NO_LEAD)
        return GO;
    if (at(c, c->p) - x->start > (int64_t)x->lead_limit || is_word(x, "SELECT"))
        x->lead_state = NO_LEAD;
    else if (x->lead_state == NAMES && last != INTO && last != DOT &&
             (is_word(x, "VALUES") || (x->dialect == MYSQL && is_word(x, "VALUE"))))
        return open_rows(x, c);
    return GO;
}

static int
in_word(Lexer *x, Cursor *c)
{
    while (c->p < c->end) {
        unsigned char b = *c->p;
        if (!(x->traits[b] & WORD))
            return word_end(x, c);
        if (b == x->delimiter[0]) { /* the mysql client looks for it within words too */
            int found = delimiter_at(x, c, c->p);
            if (found < 0)
                return MORE;
            if (found)
                return word_end(x, c);
        }
        if (x->word_length < WORD_LIMIT)
            x->word[x->word_length] = b >= 'a' && b <= 'z' ? b - 32 : b;
        if (x->word_length <= WORD_LIMIT)
            x->word_length++;
        c->p++;
    }
    return GO;
}

/* ---- the ends of statements ------------------------------------------------------------------------ */

/* SET [SESSION|LOCAL] standard_conforming_strings {=|TO} value; the only setting that changes quoting. */
static void
watch_setting(Lexer *x, const Event *statement)
{
    char words[SETTING_LIMIT + 1];
    size_t used = 0;
    if (x->dialect != POSTGRESQL || statement->end - statement->start > SETTING_LIMIT)
        return;
    const unsigned char *text = x->out.bytes + statement->text;
    for (size_t i = 0; i < statement->length; i++) {
        unsigned char b = text[i];
        if (x->traits[b] & SPACE || b == '=' || b == '\'' || b == ';')
            b = ' ';
        if (b == ' ' && (!used || words[used - 1] == ' '))
            continue;
        words[used++] = (char)(b >= 'A' && b <= 'Z' ? b + 32 : b);
    }
    while (used && words[used - 1] == ' ')
        used--;
    words[used] = 0;
    char *word = words;
    if (strncmp(word, "set ", 4) != 0)
        return;
    word += 4;
    if (strncmp(word, "session ", 8) == 0)
        word += 8;
    else if (strncmp(word, "local ", 6) == 0)
        word += 6;
    if (strncmp(word, "standard_conforming_strings ", 28) != 0)
        return;
    word += 28;
    if (strncmp(word, "to ", 3) == 0)
        word += 3;
    if (strcmp(word, "off") == 0 || strcmp(word, "false") == 0)
        x->backslashes = 1;
    else if (strcmp(word, "on") == 0 || strcmp(word, "true") == 0)
        x->backslashes = 0;
}

/* c->p is at the delimiter. */
static int
statement_end(Lexer *x, Cursor *c)
{
    c->p += x->delimiter_length;
    x->inside = PLAIN;
    if (x->piece == INSERT) {
        x->rows_end = at(c, c->p);
        x->piece = BETWEEN;
        return GO;
    }
    if (emit_piece(x, c, STATEMENT, at(c, c->p)) < 0)
        return FAILED;
    watch_setting(x, &x->out.events[x->out.used - 1]);
    x->piece = x->copy_in ? COPY_LINE : NOTHING;
    return GO;
}

static void
watch_delimiter(Lexer *x, const Event *line)
{
    const unsigned char *text = x->out.bytes + line->text;
    size_t start = 9, end;
    if (x->dialect != MYSQL || line->end - line->start > (int64_t)line->length)
        return;
    while (start < line->length && x->traits[text[start]] & SPACE)
        start++;
    for (end = start; end < line->length && !(x->traits[text[end]] & SPACE); end++)
        if (text[end] == '\\')
            return; /* the client refuses it */
    if (end == start || end - start > DELIMITER_LIMIT)
        return;
    x->delimiter_length = end - start;
    memcpy(x->delimiter, text + start, x->delimiter_length);
}

/* ---- steps within statements ------------------------------------------------------------------------ */

/* A doubled quote closes and opens again at once; only E'..' must be told from the '..' it would become. */
static int
quoted(Lexer *x, Cursor *c)
{
    const unsigned char *p = c->p, *end = c->end;
    for (;;) {
        if (x->escapes)
            while (p < end && *p != x->quote && *p != '\\')
                p++;
        else if ((p = memchr(p, x->quote, (size_t)(end - p))) == NULL)
            p = end;
        c->p = p;
        if (p == end)
            return GO;
        int prefixed = x->quote == '\'' && x->escapes != x->backslashes;
        if (*p == '\\' || prefixed) {
            if (end - p < 2 && !c->final)
                return MORE;
            if (end - p >= 2 && (*p == '\\' || p[1] == x->quote)) {
                p += 2;
                continue;
            }
            if (*p == '\\') {
                c->p = end;
                return GO;
            }
        }
        x->inside = PLAIN;
        c->p = p + 1;
        return GO;
    }
}

static int
dollar_quote(Lexer *x, Cursor *c)
{
    const unsigned char *p = c->p + 1;
    x->last = OTHER;
    for (;; p++) {
        if (p - c->p >= TAG_LIMIT)
            break;
        if (p == c->end) {
            if (!c->final)
                return MORE;
            break;
        }
        if (*p == '$') {
            x->inside = DOLLAR;
            x->tag_length = (size_t)(p + 1 - c->p);
            memcpy(x->tag, c->p, x->tag_length);
            c->p = p + 1;
            return GO;
        }
        if (!(x->traits[*p] & (p == c->p + 1 ? WORD_START : WORD)))
            break;
    }
    c->p++;
    return GO;
}

static int
in_dollar_quote(Lexer *x, Cursor *c)
{
    const unsigned char *p = c->p;
    while ((p = memchr(p, '$', (size_t)(c->end - p))) != NULL) {
        int found = begins(c, p, x->tag, x->tag_length);
        c->p = p;
        if (found < 0)
            return MORE;
        if (found) {
            x->inside = PLAIN;
            c->p += x->tag_length;
            return GO;
        }
        p++;
    }
    c->p = c->end;
    return GO;
}

/* Behind the opening of a comment; 1 in *closed when its end was passed. PostgreSQL's nest. */
static int
in_block(Lexer *x, Cursor *c, int *closed)
{
    const unsigned char *p = c->p;
    *closed = 0;
    for (; p < c->end; p++) {
        if (*p != '*' && (*p != '/' || x->dialect != POSTGRESQL))
            continue;
        if (c->end - p < 2) {
            c->p = c->final ? c->end : p;
            return c->final ? GO : MORE;
        }
        if (*p == '*' && p[1] == '/') {
            p++;
            if (--x->comments == 0) {
                c->p = p + 1;
                *closed = 1;
                return GO;
            }
        }
        else if (*p == '/' && p[1] == '*') {
            p++;
            x->comments++;
        }
    }
    c->p = c->end;
    return GO;
}

static int
slash(Lexer *x, Cursor *c)
{
    int found = begins(c, c->p, "/*", 2);
    if (found < 0)
        return MORE;
    if (!found) {
        x->last = OTHER;
        c->p++;
        return GO;
    }
    if (x->dialect == MYSQL) {
        int plain = begins(c, c->p, "/*!", 3), maria = begins(c, c->p, "/*M!", 4);
        if (plain < 0 || maria < 0)
            return MORE;
        if (plain || maria) { /* code like any other, up to its star and slash */
            x->executable = 1;
            c->p += maria ? 4 : 3;
            return GO;
        }
    }
    x->inside = BLOCK_COMMENT;
    x->comments = 1;
    c->p += 2;
    return GO;
}

/* Whether the text up to here can still be an INSERT's before its rows, when b comes next. */
static void
watch_lead(Lexer *x, unsigned char b)
{
    if (x->traits[b] & (SPACE | WORD_START) || b == '"' || b == '.')
        return;
    if (b == '`' ? x->dialect != POSTGRESQL : b == '[' && x->dialect == SQLITE)
        return;
    if (b == '(' && x->lead_state == NAMES)
        x->lead_state = COLUMNS;
    else if (b == ')' && x->lead_state == COLUMNS)
        x->lead_state = NAMES;
    else if (b != ',' || x->lead_state != COLUMNS)
        x->lead_state = NO_LEAD;
}

static int
semicolon(Lexer *x, Cursor *c)
{
    if (x->piece == CODE && (x->parens || x->begins || (x->trigger && x->last != END))) {
        x->last = SEMICOLON;
        c->p++;
        return GO;
    }
    return statement_end(x, c);
}

static int
plain(Lexer *x, Cursor *c)
{
    unsigned char b = *c->p;
    int found = delimiter_at(x, c, c->p);
    if (found)
        return found < 0 ? MORE : semicolon(x, c);
    if (x->traits[b] & SPACE) {
        c->p++;
        return GO;
    }
    if (x->lead_state)
        watch_lead(x, b);
    if (x->traits[b] & WORD_START) {
        x->inside = IN_WORD;
        x->word_length = 0;
        return in_word(x, c);
    }
    switch (b) {
    case '\'':
        x->creating = 0;
        return open_quoted(x, c, b, x->backslashes);
    case '"':
        x->creating = 0;
        return open_quoted(x, c, b, x->dialect == MYSQL);
    case '`':
        if (x->dialect == POSTGRESQL)
            break;
        x->creating = 0;
        return open_quoted(x, c, b, 0);
    case '[':
        if (x->dialect != SQLITE)
            break;
        x->creating = 0;
        return open_quoted(x, c, ']', 0);
    case '$': /* a word in the other dialects */
        return dollar_quote(x, c);
    case '-':
    case '#':
        found = line_comment_at(x, c, c->p);
        if (found < 0)
            return MORE;
        if (found) {
            x->inside = LINE_COMMENT;
            return GO;
        }
        break;
    case '/':
        return slash(x, c);
    case '*':
        if (x->executable) {
            found = begins(c, c->p, "*/", 2);
            if (found < 0)
                return MORE;
            if (found) {
                x->executable = 0;
                c->p += 2;
                return GO;
            }
        }
        break;
    case '(':
        x->parens += x->dialect == POSTGRESQL;
        break;
    case ')':
        x->parens -= x->parens > 0;
        break;
    }
    x->creating = 0;
    x->last = b == '.' ? DOT : OTHER;
    /* Digits in one go: see skip_blocks. */
    do
        c->p++;
    while (b >= '0' && b <= '9' && c->p < c->end && *c->p >= '0' && *c->p <= '9');
    return GO;
}

/* ---- rows in blocks of 64 bytes -------------------------------------------------------------------- */

#if defined(__SSE2__)

/* Goes over INSERT rows as long as nothing but '..' strings and harmless bytes come. For each block one
 * bit a byte: quotes that are not escaped; a running exclusive or of them says what is within a string;
 * whatever else could matter and is outside of strings stops it (technique: Langdale and Lemire,
 * "Parsing gigabytes of JSON per second", VLDB Journal 2019). */
static void
skip_blocks(Lexer *x, Cursor *c)
{
    const unsigned char *p = c->p;
    int dialect = x->dialect, backslashes = x->backslashes;
    uint64_t within = x->inside == QUOTED ? ~(uint64_t)0 : 0;
    uint64_t pending = 0; /* the next block's first byte is escaped */
#define ALL(byte) _mm_set1_epi8((char)(byte))
    const __m128i quote = ALL('\''), backslash = ALL('\\'), delimiter = ALL(x->delimiter[0]);
    const __m128i name = ALL('"'), dash = ALL('-'), slash_ = ALL('/'), star = ALL('*'), small = ALL(0x20);
    const __m128i one = ALL(dialect == POSTGRESQL ? '$' : '`');
    const __m128i other = ALL(dialect == POSTGRESQL ? '$' : dialect == MYSQL ? '#' : '[');
    const __m128i prefix = ALL(dialect == POSTGRESQL ? 'e' : 0); /* no byte is 0 once `small` is in it */
#undef ALL
    while (c->end - p >= 65) {
        uint64_t quotes = 0, slashes = 0, special = 0;
        for (int i = 0; i < 64; i += 16) {
            __m128i v = _mm_loadu_si128((const __m128i *)(const void *)(p + i));
            __m128i next = _mm_loadu_si128((const __m128i *)(const void *)(p + i + 1));
            __m128i is_quote = _mm_cmpeq_epi8(v, quote);
            __m128i s = _mm_or_si128(_mm_cmpeq_epi8(v, delimiter), _mm_cmpeq_epi8(v, name));
            s = _mm_or_si128(s, _mm_or_si128(_mm_cmpeq_epi8(v, one), _mm_cmpeq_epi8(v, other)));
            s = _mm_or_si128(s, _mm_and_si128(_mm_cmpeq_epi8(v, dash), _mm_cmpeq_epi8(next, dash)));
            s = _mm_or_si128(s, _mm_and_si128(_mm_cmpeq_epi8(v, slash_), _mm_cmpeq_epi8(next, star)));
            s = _mm_or_si128(s, _mm_and_si128(_mm_cmpeq_epi8(_mm_or_si128(v, small), prefix),
                                              _mm_cmpeq_epi8(next, quote)));
            quotes |= (uint64_t)(uint32_t)_mm_movemask_epi8(is_quote) << i;
            special |= (uint64_t)(uint32_t)_mm_movemask_epi8(s) << i;
            if (backslashes)
                slashes |= (uint64_t)(uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(v, backslash)) << i;
        }
        uint64_t escaped = pending, rest = slashes & ~pending;
        pending = 0;
        while (rest) {
            uint64_t bit = rest & -rest;
            escaped |= bit << 1;
            pending = bit >> 63;
            rest &= ~(bit | bit << 1);
        }
        uint64_t strings = quotes & ~escaped;
        for (int shift = 1; shift < 64; shift *= 2)
            strings ^= strings << shift;
        strings ^= within; /* set from an opening quote to before its closing one */
        special = (special | slashes) & ~strings;
        if (special) {
            p += __builtin_ctzll(special);
            within = pending = 0;
            break;
        }
        within = strings >> 63 ? ~(uint64_t)0 : 0;
        p += 64;
    }
    if (within) {
        x->inside = QUOTED;
        x->quote = '\'';
        x->escapes = backslashes;
        p += pending; /* there is one more: a block is taken only when a byte follows it */
    }
    else {
        x->inside = PLAIN;
        /* Back to where the number or word here began: whether $ opens a quote depends on that. */
        if (dialect == POSTGRESQL)
            while (p > c->p && x->traits[p[-1]] & WORD)
                p--;
    }
    c->p = p;
}

static inline int
in_blocks(const Lexer *x)
{
    if (x->executable || x->delimiter[0] == '\'')
        return 0;
    return x->inside == PLAIN ||
           (x->inside == QUOTED && x->quote == '\'' && x->escapes == x->backslashes);
}

#else

static inline void
skip_blocks(Lexer *x, Cursor *c)
{
    (void)x, (void)c;
}

static inline int
in_blocks(const Lexer *x)
{
    return (void)x, 0;
}

#endif

static int
statement(Lexer *x, Cursor *c)
{
    int closed;
    if (x->piece == INSERT && c->end - c->p >= 65 && in_blocks(x))
        skip_blocks(x, c);
    switch (x->inside) {
    case PLAIN:
        return plain(x, c);
    case IN_WORD:
        return in_word(x, c);
    case QUOTED:
        return quoted(x, c);
    case DOLLAR:
        return in_dollar_quote(x, c);
    case LINE_COMMENT: {
        const unsigned char *newline = memchr(c->p, '\n', (size_t)(c->end - c->p));
        c->p = newline ? newline + 1 : c->end;
        if (newline)
            x->inside = PLAIN;
        return GO;
    }
    case BLOCK_COMMENT: {
        int go = in_block(x, c, &closed);
        if (closed)
            x->inside = PLAIN;
        return go;
    }
    }
    return FAILED;
}

/* ---- COPY data --------------------------------------------------------------------------------------- */

/* The first newline with \. behind it, or NULL. */
static const unsigned char *
find_last_line(const unsigned char *p, const unsigned char *end)
{
#if defined(__SSE2__)
    const __m128i newline = _mm_set1_epi8('\n'), backslash = _mm_set1_epi8('\\'), dot = _mm_set1_epi8('.');
    for (; end - p >= 18; p += 16) {
        __m128i a = _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)(const void *)p), newline);
        __m128i b = _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)(const void *)(p + 1)), backslash);
        __m128i d = _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)(const void *)(p + 2)), dot);
        int found = _mm_movemask_epi8(_mm_and_si128(_mm_and_si128(a, b), d));
        if (found)
            return p + __builtin_ctz((unsigned)found);
    }
#endif
    while (end - p >= 3 && (p = memchr(p, '\n', (size_t)(end - p - 2))) != NULL) {
        if (p[1] == '\\' && p[2] == '.')
            return p;
        p++;
    }
    return NULL;
}

static int
copy_data(Lexer *x, Cursor *c)
{
    if (x->line_start) {
        int lf = begins(c, c->p, "\\.\n", 3), crlf = begins(c, c->p, "\\.\r\n", 4);
        if (lf < 0 || crlf < 0)
            return MORE;
        if (lf || crlf) {
            c->p += lf ? 3 : 4;
            x->piece = NOTHING;
            return emit_rows(x, ROWS_END, at(c, c->p));
        }
        x->line_start = 0;
    }
    const unsigned char *found = find_last_line(c->p, c->end);
    if (found) {
        c->p = found + 1;
        x->line_start = 1;
    }
    else if (c->end[-1] == '\n') {
        c->p = c->end;
        x->line_start = 1;
    }
    else if (c->end - c->p >= 2 && c->end[-2] == '\n' && c->end[-1] == '\\') {
        c->p = c->end - 1;
        x->line_start = 1;
    }
    else {
        c->p = c->end;
    }
    return GO;
}

static int
open_copy(Lexer *x, int64_t start)
{
    x->piece = COPY;
    x->start = start;
    x->lead_length = 0;
    x->line_start = 1;
    return emit_rows(x, ROWS_BEGIN, start);
}

/* ---- steps between statements -------------------------------------------------------------------------- */

static int
top(Lexer *x, Cursor *c)
{
    while (x->traits[*c->p] & SPACE)
        if (++c->p == c->end)
            return GO;
    int found = delimiter_at(x, c, c->p);
    if (found < 0)
        return MORE;
    if (found) {
        open_piece(x, c, CODE);
        return statement_end(x, c);
    }
    found = line_comment_at(x, c, c->p);
    if (found < 0)
        return MORE;
    if (found) {
        open_piece(x, c, LINES);
        return GO;
    }
    found = *c->p == '/' ? begins(c, c->p, "/*", 2) : 0;
    if (found < 0)
        return MORE;
    if (found && x->dialect == MYSQL) {
        int code = begins(c, c->p, "/*!", 3), maria = begins(c, c->p, "/*M!", 4);
        /* No server has this version: mysqldump's way to reach the client only. No delimiter follows. */
        int never = begins(c, c->p, "/*!999999", 9), maria_never = begins(c, c->p, "/*M!999999", 10);
        if (code < 0 || maria < 0 || never < 0 || maria_never < 0)
            return MORE;
        found = never || maria_never || !(code || maria);
    }
    if (found) {
        open_piece(x, c, BLOCK);
        x->comments = 1;
        c->p += 2;
        return GO;
    }
    found = x->dialect == MYSQL ? delimiter_command_at(c, c->p) : x->dialect == POSTGRESQL && *c->p == '\\';
    if (found < 0)
        return MORE;
    open_piece(x, c, found ? CLIENT_LINE : CODE);
    return GO;
}

/* The newline of a line that ended, or NULL with all consumed. */
static const unsigned char *
newline(Cursor *c)
{
    const unsigned char *found = memchr(c->p, '\n', (size_t)(c->end - c->p));
    c->p = found ? found : c->end;
    return found;
}

/* Where the line that ends at c->p ends without its carriage return. */
static int64_t
line_end(const Lexer *x, const Cursor *c)
{
    unsigned char previous = c->p > c->begin ? c->p[-1] : x->previous;
    return at(c, c->p) - (previous == '\r' && c->p < c->end);
}

static int
comment_lines(Lexer *x, Cursor *c)
{
    if (!newline(c))
        return GO;
    if (c->end - c->p == 1 && !c->final)
        return MORE;
    int delimiter = 0, found = 0;
    if (c->end - c->p > 1) {
        delimiter = delimiter_at(x, c, c->p + 1);
        found = line_comment_at(x, c, c->p + 1);
    }
    if (delimiter < 0 || found < 0)
        return MORE;
    if (found && !delimiter) {
        c->p++;
        return GO;
    }
    x->piece = NOTHING;
    return emit_piece(x, c, COMMENT, line_end(x, c));
}

static int
end_client_line(Lexer *x, Cursor *c)
{
    x->piece = NOTHING;
    if (emit_piece(x, c, META, line_end(x, c)) < 0)
        return FAILED;
    watch_delimiter(x, &x->out.events[x->out.used - 1]);
    return GO;
}

static int
between_rows(Lexer *x, Cursor *c)
{
    while (x->traits[*c->p] & SPACE)
        if (++c->p == c->end)
            return GO;
    int same = begins(c, c->p, x->lead, x->lead_length);
    if (same < 0)
        return MORE;
    if (same) {
        const unsigned char *behind = c->p + x->lead_length;
        if (behind == c->end && !c->final)
            return MORE;
        same = behind == c->end || !(x->traits[*behind] & WORD);
        if (behind < c->end && !same) {
            int found = delimiter_at(x, c, behind);
            if (found < 0)
                return MORE;
            same = found;
        }
        if (same) {
            c->p = behind;
            x->piece = INSERT;
            x->executable = 0;
            return GO;
        }
    }
    x->piece = NOTHING;
    return emit_rows(x, ROWS_END, x->rows_end);
}

static int
step(Lexer *x, Cursor *c)
{
    int closed;
    switch (x->piece) {
    case NOTHING:
        return top(x, c);
    case LINES:
        return comment_lines(x, c);
    case BLOCK: {
        int go = in_block(x, c, &closed);
        if (!closed)
            return go;
        x->piece = NOTHING;
        return emit_piece(x, c, COMMENT, at(c, c->p));
    }
    case CLIENT_LINE:
        return newline(c) ? end_client_line(x, c) : GO;
    case CODE:
    case INSERT:
        return statement(x, c);
    case BETWEEN:
        return between_rows(x, c);
    case COPY_LINE:
        if (!newline(c))
            return GO;
        c->p++;
        return open_copy(x, at(c, c->p));
    case COPY:
        return copy_data(x, c);
    }
    return FAILED;
}

/* Goes as far as the bytes decide; c->p is where it stopped. */
static int
run(Lexer *x, Cursor *c)
{
    int go = GO;
    c->unsaved = c->begin;
    while (go == GO && c->p < c->end)
        go = step(x, c);
    if (go == FAILED)
        return -1;
    if (c->p > c->begin)
        x->previous = c->p[-1];
    if (x->piece == LINES || x->piece == BLOCK || x->piece == CLIENT_LINE || x->piece == CODE)
        return save_text(x, c);
    return 0;
}

/* The end of the stream, c->p == c->end: emits what is open. `piece` stays, for `state` to tell. */
static int
close_open(Lexer *x, Cursor *c)
{
    int64_t end = at(c, c->end);
    if (x->inside == IN_WORD && (x->piece == CODE || x->piece == INSERT) && word_end(x, c) < 0)
        return FAILED;
    switch (x->piece) {
    case NOTHING:
        return GO;
    case LINES:
    case BLOCK:
        return emit_piece(x, c, COMMENT, end);
    case CLIENT_LINE:
        return end_client_line(x, c);
    case CODE:
        return emit_piece(x, c, STATEMENT, end);
    case BETWEEN:
        return emit_rows(x, ROWS_END, x->rows_end);
    case COPY_LINE:
        return open_copy(x, end) < 0 ? FAILED : emit_rows(x, ROWS_END, end);
    case INSERT:
    case COPY:
        return emit_rows(x, ROWS_END, end);
    }
    return FAILED;
}

/* ---- the stream ------------------------------------------------------------------------------------------ */

static int
keep_tail(Lexer *x, const unsigned char *bytes, size_t length)
{
    if (reserve(&x->tail, &x->tail_room, length) < 0)
        return -1;
    if (length)
        memmove(x->tail, bytes, length);
    x->tail_used = length;
    return 0;
}

static int
feed(Lexer *x, const unsigned char *data, size_t size)
{
    if (x->tail_used && size) {
        size_t kept = x->tail_used, taken = size < WINDOW ? size : WINDOW;
        if (reserve(&x->tail, &x->tail_room, kept + taken) < 0)
            return -1;
        memcpy(x->tail + kept, data, taken);
        Cursor c = {x->tail, x->tail, x->tail + kept + taken, x->tail, x->offset, 0};
        if (run(x, &c) < 0)
            return -1;
        size_t done = (size_t)(c.p - c.begin);
        x->offset += (int64_t)done;
        if (taken == size || done < kept) /* the latter never: a window decides everything */
            return taken == size ? keep_tail(x, c.p, kept + taken - done) : -1;
        data += done - kept;
        size -= done - kept;
        x->tail_used = 0;
    }
    if (size == 0)
        return 0;
    Cursor c = {data, data, data + size, data, x->offset, 0};
    if (run(x, &c) < 0)
        return -1;
    x->offset += c.p - c.begin;
    return keep_tail(x, c.p, (size_t)(c.end - c.p));
}

static int
finish(Lexer *x)
{
    static const unsigned char none[1];
    const unsigned char *tail = x->tail_used ? x->tail : none;
    Cursor c = {tail, tail, tail + x->tail_used, tail, x->offset, 1};
    if (run(x, &c) < 0)
        return -1;
    c.unsaved = c.p;
    return close_open(x, &c) < 0 ? -1 : 0;
}

/* ---- Python ------------------------------------------------------------------------------------------------ */

static PyObject *
events_to_list(const Output *out)
{
    PyObject *list = PyList_New((Py_ssize_t)out->used);
    for (size_t i = 0; list != NULL && i < out->used; i++) {
        const Event *e = &out->events[i];
        const char *text = e->length ? (const char *)out->bytes + e->text : "";
        PyObject *event = Py_BuildValue("(iLLy#)", e->kind, (long long)e->start, (long long)e->end, text,
                                        (Py_ssize_t)e->length);
        if (event == NULL || PyList_SetItem(list, (Py_ssize_t)i, event) < 0)
            Py_CLEAR(list);
    }
    return list;
}

static int
usable(const Lexer *x)
{
    if (x->busy)
        PyErr_SetString(PyExc_RuntimeError, "the lexer is in use by another thread");
    else if (x->failed)
        PyErr_SetString(PyExc_RuntimeError, "the lexer ran out of memory before");
    else if (x->finished)
        PyErr_SetString(PyExc_ValueError, "the stream has ended");
    else
        return 1;
    return 0;
}

static PyObject *
taken(Lexer *x, int status)
{
    x->failed = status < 0;
    PyObject *list = status < 0 ? PyErr_NoMemory() : events_to_list(&x->out);
    free(x->out.events);
    free(x->out.bytes);
    x->out = (Output){0};
    return list;
}

static PyObject *
lexer_feed(PyObject *self, PyObject *argument)
{
    Lexer *x = (Lexer *)self;
    Py_buffer data;
    int status;
    if (!usable(x) || PyObject_GetBuffer(argument, &data, PyBUF_SIMPLE) < 0)
        return NULL;
    x->busy = 1;
    if (data.len < GIL_WORTH) {
        status = feed(x, data.buf, (size_t)data.len);
    }
    else {
        Py_BEGIN_ALLOW_THREADS
        status = feed(x, data.buf, (size_t)data.len);
        Py_END_ALLOW_THREADS
    }
    x->busy = 0;
    PyBuffer_Release(&data);
    return taken(x, status);
}

static PyObject *
lexer_finish(PyObject *self, PyObject *unused)
{
    Lexer *x = (Lexer *)self;
    (void)unused;
    if (!usable(x))
        return NULL;
    PyObject *list = taken(x, finish(x));
    x->finished = 1;
    return list;
}

static PyObject *
lexer_state(PyObject *self, void *unused)
{
    const Lexer *x = (const Lexer *)self;
    const char *state = "";
    (void)unused;
    if (x->piece == BLOCK)
        state = "comment";
    else if (x->piece == INSERT || x->piece == COPY_LINE || x->piece == COPY)
        state = "rows";
    else if (x->piece == CODE && x->inside == DOLLAR)
        state = "dollar quote";
    else if (x->piece == CODE && x->inside == BLOCK_COMMENT)
        state = "comment";
    else if (x->piece == CODE && x->inside == QUOTED)
        state = x->quote == '\'' || (x->quote == '"' && x->dialect == MYSQL) ? "string" : "quoted name";
    else if (x->piece == CODE)
        state = "statement";
    return PyUnicode_FromString(state);
}

static void
set_traits(Lexer *x)
{
    unsigned char digit = x->dialect == POSTGRESQL ? WORD : WORD | WORD_START;
    for (int b = 0; b < 256; b++) {
        if (b == ' ' || (b >= '\t' && b <= '\r'))
            x->traits[b] = SPACE;
        else if (b >= 0x80 || b == '_' || (b >= 'a' && b <= 'z') || (b >= 'A' && b <= 'Z'))
            x->traits[b] = WORD | WORD_START;
        else if (b == '$' || (b >= '0' && b <= '9'))
            x->traits[b] = digit;
    }
}

static PyObject *
lexer_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"dialect", "text_limit", NULL};
    int dialect;
    Py_ssize_t text_limit = 1 << 20;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "i|n:Lexer", names, &dialect, &text_limit))
        return NULL;
    if (dialect < POSTGRESQL || dialect > SQLITE)
        return PyErr_Format(PyExc_ValueError, "no dialect %d", dialect);
    if (text_limit < SETTING_LIMIT || text_limit > 1 << 30)
        return PyErr_Format(PyExc_ValueError, "text_limit must be %d to %d bytes", SETTING_LIMIT, 1 << 30);
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Lexer *x = (Lexer *)allocate(type, 0); /* all zero */
    if (x == NULL)
        return NULL;
    x->dialect = dialect;
    x->text_limit = (size_t)text_limit;
    x->lead_limit = text_limit < LEAD_LIMIT ? (size_t)text_limit : LEAD_LIMIT;
    x->backslashes = dialect == MYSQL;
    x->delimiter[0] = ';';
    x->delimiter_length = 1;
    set_traits(x);
    return (PyObject *)x;
}

static void
lexer_dealloc(PyObject *self)
{
    Lexer *x = (Lexer *)self;
    PyTypeObject *type = Py_TYPE(self);
    free(x->text);
    free(x->lead);
    free(x->tail);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyMethodDef lexer_methods[] = {
    {"feed", lexer_feed, METH_O, "feed(data, /) -> list[tuple[int, int, int, bytes]]"},
    {"finish", lexer_finish, METH_NOARGS, "finish() -> list[tuple[int, int, int, bytes]]"},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef lexer_members[] = {
    {"state", lexer_state, NULL, "What is open, \"\" between pieces.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot lexer_slots[] = {
    {Py_tp_new, lexer_new},         {Py_tp_dealloc, lexer_dealloc},  {Py_tp_methods, lexer_methods},
    {Py_tp_getset, lexer_members},  {Py_tp_doc, "See _lexer.pyi."},  {0, NULL},
};

static PyType_Spec lexer_spec = {
    .name = "holdfast.formats.dumps.lexer._lexer.Lexer",
    .basicsize = sizeof(Lexer),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = lexer_slots,
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
    .m_size = 0,           .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__lexer(void)
{
    return PyModuleDef_Init(&definition);
}
