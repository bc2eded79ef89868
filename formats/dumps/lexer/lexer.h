/* Where comments, statements, client lines and bulk rows stand in a dump written as SQL text.
 *
 * `_lexer.pyi` is the contract; tests/support/lexer_twin.py says the same in plain Python and must agree in
 * every case. The rules are those of the programs that read such dumps: psql (src/fe_utils/psqlscan.l),
 * the mysql client (add_line), sqlite3_complete.
 *
 * An automaton over bytes that asks for more when a decision needs bytes that are not there yet. Those
 * bytes (at most WINDOW) are kept and seen again together with what follows, so that no decision depends
 * on how the stream was cut into feeds. Memory: the text of the open piece (up to the caller's limit), one
 * lead, the window, and the events of one feed.
 *
 * lexer.c      the stream: feeds, what begins and ends a piece
 * output.c     memory that grows, events
 * statement.c  the bytes of a statement: quotes, comments, its end
 * words.c      its words
 * scanning.c   vector loops over rows, and byte strings among them
 * postgresql.c, mysql.c, sqlite.c  what only this dialect has
 * _lexer.c     the Python module
 *
 * Only _lexer.c knows of Python: the sanitizers and the fuzzer build the rest alone.
 */
#ifndef HOLDFAST_LEXER_H
#define HOLDFAST_LEXER_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define LEAD_LIMIT 65536     /* bytes of an INSERT before its rows */
#define TAG_LIMIT 1024       /* bytes of $tag$; psql has no limit, a hostile one would be kept whole */
#define DELIMITER_LIMIT 16   /* bytes; the mysql client takes 15 */
#define WORD_LIMIT 16        /* bytes that are kept; no keyword here is longer than 9 */
#define SETTING_LIMIT 64     /* bytes of a SET standard_conforming_strings that is understood */
#define COMMAND_LIMIT 64     /* bytes of a client's command within a piece that are told */
#define BLOCK_SIZE 64        /* bytes that skip_blocks takes at once */
#define WINDOW (LEAD_LIMIT + TAG_LIMIT + 64)
#define TEXT_LIMIT_LARGEST ((size_t)1 << 30)

enum { POSTGRESQL = 1, MYSQL = 2, SQLITE = 3 };
enum { COMMENT, STATEMENT, META, ROWS_BEGIN, ROWS_END, COMMAND };
enum { SPACE = 1, WORD = 2, WORD_START = 4, NAME_QUOTE = 8, OWN = 16 }; /* traits of a byte */

/* Answers of a step. FAILED: out of memory; MORE: the decision needs bytes that are not there yet;
 * PASS: of Dialect.own_byte, a byte like any other. */
typedef enum { FAILED = -1, MORE = 0, GO = 1, PASS = 2 } Answer;

/* Answers of the functions called ..._at, which ask what begins at a byte. */
typedef enum { UNDECIDED = -1, NO = 0, YES = 1 } Found;

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
typedef enum { NO_LEAD, NAMES, COLUMNS } LeadState; /* what an INSERT has shown so far */

/* The last token of a statement that was no space or comment, as far as a rule asks for it. */
typedef enum { OTHER, AFTER_INTO, AFTER_DOT, AFTER_FROM, AFTER_SEMICOLON, AFTER_END, AFTER_CREATE } Token;

typedef enum {
    NO_KEYWORD,
    KEY_OR, KEY_END, KEY_CASE, KEY_COPY, KEY_FROM, KEY_INTO, KEY_TEMP, KEY_BEGIN, KEY_STDIN, KEY_VALUE,
    KEY_CREATE, KEY_INSERT, KEY_SELECT, KEY_VALUES, KEY_REPLACE, KEY_TRIGGER, KEY_FUNCTION, KEY_PROCEDURE,
    KEY_TEMPORARY
} Keyword;

typedef struct {
    unsigned char *bytes;
    size_t used, room;
} Buffer;

typedef struct {
    int kind;
    int64_t start, end;
    size_t text, length; /* in Output.text */
} Event;

typedef struct {
    Event *events;
    size_t used, room;
    Buffer text;
} Output;

/* What the byte at the cursor is within; `inside` says which members count. */
typedef struct {
    Inside inside;
    unsigned char quote; /* QUOTED: the closing one */
    int escapes;         /* QUOTED: a backslash takes the next byte's meaning away */
    uint64_t comments;   /* BLOCK_COMMENT and Piece BLOCK: depth */
    size_t tag_length;   /* DOLLAR */
    unsigned char tag[TAG_LIMIT];
} Within;

typedef struct {
    size_t length;
    unsigned char text[WORD_LIMIT]; /* the first bytes; what is behind `length` means nothing */
} Word;

/* What the rules remember of the open statement. All zero at its begin. */
typedef struct {
    Token last;
    LeadState lead;
    int executable; /* MySQL: within a comment that servers execute */
    int told;       /* a command in it is */
    struct {
        uint64_t parens, begins;
        unsigned words;          /* up to 4 */
        unsigned char create[4]; /* the first words: CREATE, OR, REPLACE, FUNCTION, PROCEDURE, or NO_KEYWORD */
        int copying, copy_in;    /* it begins with COPY; FROM stdin has been seen */
    } postgresql;
    struct {
        int trigger; /* CREATE [TEMP] TRIGGER has been seen */
    } sqlite;
} Statement;

/* An open run of rows. */
typedef struct {
    Buffer lead;    /* empty for COPY */
    int64_t end;    /* INSERT: of the last whole statement */
    int line_start; /* COPY: the next byte begins a line */
} Rows;

typedef struct Dialect Dialect;

typedef struct {
    const Dialect *dialect;
    size_t text_limit, lead_limit;
    unsigned char traits[256];
    unsigned char delimiter[DELIMITER_LIMIT];
    size_t delimiter_length;
    int backslashes; /* '..' has backslash escapes without a prefix */

    Piece piece;
    int64_t start; /* of the piece */
    Buffer text;   /* of the piece, as far as former feeds had it */
    Within within;
    Word word;
    Statement statement;
    Rows rows;

    Buffer tail;    /* seen but undecided; begins at `offset` of the stream */
    int64_t offset;
    unsigned char previous; /* the byte before `offset` */
    Output out;
} Lexer;

typedef struct {
    const unsigned char *begin, *p, *end;
    const unsigned char *unsaved; /* from here on, the open piece's text is not in Lexer.text */
    int64_t base;                 /* offset of `begin` in the stream */
    int final;
} Cursor;

/* One byte 16 times: rows of one statement are so short that making it each time showed. */
typedef struct {
    unsigned char bytes[16];
} Sixteen;

#define FOUR_OF(b) b, b, b, b
#define SIXTEEN_OF(b) {{FOUR_OF(b), FOUR_OF(b), FOUR_OF(b), FOUR_OF(b)}}

/* A byte string to look for, and where one was found. */
typedef struct {
    const unsigned char *bytes;
    size_t length; /* not 0 */
} Needle;

typedef struct {
    size_t end;    /* behind it */
    size_t needle; /* its index */
} Match;

typedef struct {
    Match *at;
    size_t used, room;
} Matches;

/* The rules that one client program has for itself. What is NULL or 0, it does not have. */
struct Dialect {
    int number;                   /* POSTGRESQL, MYSQL or SQLITE */
    int starts_backslashes;       /* see Lexer.backslashes */
    int double_quoted_strings;    /* ".." has the escapes of '..' */
    int comments_nest;
    int dollar_quotes;            /* $tag$..$tag$; otherwise `$` begins a word, and digits do */
    int replace_inserts;          /* REPLACE is a kind of INSERT */
    int value_is_values;          /* VALUE is VALUES */
    unsigned char prefix;         /* small letter that gives the string behind it escapes */
    Sixteen stops[2];             /* bytes that skip_blocks leaves to `plain` when outside of strings */
    Sixteen pair_stop[3];         /* a byte, with bit 0x20 set, and the one behind it, under a mask, that stop it */
    const char *name_quotes;      /* what opens a quoted name, besides the double quote */
    const char *own;              /* bytes that `own_byte` judges */
    Found (*line_comment_at)(const Cursor *c, const unsigned char *p);
    Found (*block_comment_at)(const Cursor *c, const unsigned char *p); /* between statements, at a slash */
    Found (*client_line_at)(const Cursor *c, const unsigned char *p);
    Answer (*own_byte)(Lexer *x, Cursor *c, unsigned char b);
    void (*word)(Lexer *x, Keyword keyword, Token last, int first);
    int (*semicolon_is_inner)(const Lexer *x);
    void (*after_statement)(Lexer *x, const Event *statement); /* may set x->piece */
    void (*after_client_line)(Lexer *x, const Event *line);
};

#pragma GCC visibility push(hidden) /* calls between these files need no table of symbols then */

extern const Dialect postgresql_dialect, mysql_dialect, sqlite_dialect;

/* lexer.c */
void lexer_init(Lexer *x, const Dialect *dialect, size_t text_limit); /* *x is all zero */
void lexer_free(Lexer *x);
int lexer_feed(Lexer *x, const unsigned char *data, size_t size); /* -1: out of memory */
int lexer_finish(Lexer *x);                                       /* -1: out of memory */
const char *lexer_state(const Lexer *x);

/* output.c */
void output_clear(Output *out);
void output_free(Output *out);
int buffer_reserve(Buffer *buffer, size_t wanted);
int buffer_append(Buffer *buffer, const unsigned char *bytes, size_t length);
int save_text(Lexer *x, Cursor *c);
Answer emit_piece(Lexer *x, const Cursor *c, int kind, int64_t end);
Answer emit_rows(Lexer *x, int kind, int64_t end);
Answer emit_command(Lexer *x, const Cursor *c, size_t length);

/* statement.c */
Answer statements(Lexer *x, Cursor *c);
Answer tell_command(Lexer *x, const Cursor *c);
Answer statement_end(Lexer *x, Cursor *c);
Answer open_quoted(Lexer *x, Cursor *c, unsigned char closing, int escapes);
Answer in_block_comment(Lexer *x, Cursor *c, int *closed);
Answer plain_block_comment(Lexer *x, Cursor *c);

/* words.c */
Answer in_word(Lexer *x, Cursor *c);
Answer word_end(Lexer *x, Cursor *c);

/* postgresql.c */
Answer in_dollar_quote(Lexer *x, Cursor *c);
Answer open_copy(Lexer *x, int64_t start);
Answer copy_line(Lexer *x, Cursor *c);
Answer copy_data(Lexer *x, Cursor *c);

/* scanning.c */
void skip_blocks(Lexer *x, Cursor *c);
const unsigned char *find_copy_end(const unsigned char *p, const unsigned char *end);

/* All matches in order of their ends, overlapping ones too; none when `common`, if it has a length, is not
 * in `data`. -1: out of memory. The caller frees out->at. */
int find_all(const unsigned char *data, size_t size, const Needle *needles, size_t count, const Needle *common,
             Matches *out);

#pragma GCC visibility pop

static inline int64_t
at(const Cursor *c, const unsigned char *p)
{
    return c->base + (p - c->begin);
}

static inline Found
begins(const Cursor *c, const unsigned char *p, const void *what, size_t length)
{
    size_t n = (size_t)(c->end - p);
    if (n >= length)
        return memcmp(p, what, length) == 0 ? YES : NO;
    return memcmp(p, what, n) == 0 && !c->final ? UNDECIDED : NO;
}

static inline Found
delimiter_at(const Lexer *x, const Cursor *c, const unsigned char *p)
{
    if (*p != x->delimiter[0])
        return NO;
    return x->delimiter_length == 1 ? YES : begins(c, p, x->delimiter, x->delimiter_length);
}

#endif
