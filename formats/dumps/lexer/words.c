/* The words of a statement: keywords, and where an INSERT turns into rows. */
#include "lexer.h"

#define KEYWORD_LONGEST 9

static const struct {
    unsigned char text[WORD_LIMIT]; /* zeros behind it */
    Keyword keyword;
} keywords[] = { /* by length */
    {"OR", KEY_OR},
    {"END", KEY_END},
    {"CASE", KEY_CASE}, {"COPY", KEY_COPY}, {"FROM", KEY_FROM}, {"INTO", KEY_INTO}, {"TEMP", KEY_TEMP},
    {"BEGIN", KEY_BEGIN}, {"STDIN", KEY_STDIN}, {"VALUE", KEY_VALUE},
    {"CREATE", KEY_CREATE}, {"INSERT", KEY_INSERT}, {"SELECT", KEY_SELECT}, {"VALUES", KEY_VALUES},
    {"REPLACE", KEY_REPLACE}, {"TRIGGER", KEY_TRIGGER},
    {"FUNCTION", KEY_FUNCTION},
    {"PROCEDURE", KEY_PROCEDURE}, {"TEMPORARY", KEY_TEMPORARY},
};

/* first_of[n]: the first keyword of n bytes; those of n end where those of n + 1 begin. */
static const unsigned char first_of[KEYWORD_LONGEST + 2] = {0, 0, 0, 1, 2, 7, 10, 14, 16, 17, 19};

/* First letters of the keywords of n bytes: most words are told apart by it. */
#define LETTER(capital) (UINT32_C(1) << ((capital) & 0x1f))
static const uint32_t initials[KEYWORD_LONGEST + 1] = {
    [2] = LETTER('O'),
    [3] = LETTER('E'),
    [4] = LETTER('C') | LETTER('F') | LETTER('I') | LETTER('T'),
    [5] = LETTER('B') | LETTER('S') | LETTER('V'),
    [6] = LETTER('C') | LETTER('I') | LETTER('S') | LETTER('V'),
    [7] = LETTER('R') | LETTER('T'),
    [8] = LETTER('F'),
    [9] = LETTER('P') | LETTER('T'),
};

static inline uint64_t
half(const unsigned char *bytes)
{
    uint64_t eight;
    memcpy(&eight, bytes, sizeof eight);
    return eight;
}

/* Compares 8 bytes at once: a loop over bytes here took 40 % of the time for statements. Without bit 0x20 a
 * small letter is its capital, and no byte but letters becomes one. */
static Keyword
keyword_of(const Word *word)
{
#define EIGHT(byte) byte, byte, byte, byte, byte, byte, byte, byte
    static const unsigned char masks[2 * WORD_LIMIT] = {EIGHT(0xdf), EIGHT(0xdf), EIGHT(0), EIGHT(0)};
#undef EIGHT
    if (word->length > KEYWORD_LONGEST || !(initials[word->length] & LETTER(word->text[0])))
        return NO_KEYWORD;
    const unsigned char *mask = masks + WORD_LIMIT - word->length; /* letters for the word, zeros behind it */
    uint64_t low = half(word->text) & half(mask), high = half(word->text + 8) & half(mask + 8);
    for (size_t i = first_of[word->length]; i < first_of[word->length + 1]; i++)
        if (low == half(keywords[i].text) && high == half(keywords[i].text + 8))
            return keywords[i].keyword;
    return NO_KEYWORD;
}

static Answer
open_rows(Lexer *x, Cursor *c)
{
    if (save_text(x, c) < 0)
        return FAILED;
    x->rows.lead.used = 0;
    if (buffer_append(&x->rows.lead, x->text.bytes, x->text.used) < 0)
        return FAILED;
    x->piece = INSERT;
    return emit_rows(x, ROWS_BEGIN, x->start);
}

static int
begins_insert(const Dialect *dialect, Keyword keyword)
{
    return keyword == KEY_INSERT || (keyword == KEY_REPLACE && dialect->replace_inserts);
}

static int
begins_values(const Dialect *dialect, Keyword keyword)
{
    return keyword == KEY_VALUES || (keyword == KEY_VALUE && dialect->value_is_values);
}

static Token
token_of(Keyword keyword, Token last)
{
    switch (keyword) {
    case KEY_INTO:
        return AFTER_INTO;
    case KEY_FROM:
        return AFTER_FROM;
    case KEY_END:
        return last == AFTER_SEMICOLON ? AFTER_END : OTHER;
    default:
        return OTHER;
    }
}

/* The word of x is whole; c->p is behind it. */
Answer
word_end(Lexer *x, Cursor *c)
{
    Statement *s = &x->statement;
    const Dialect *dialect = x->dialect;
    Token last = s->last;
    x->within.inside = PLAIN;
    s->last = OTHER;
    if (x->word.length == 1 && (x->word.text[0] | 0x20) == dialect->prefix && c->p < c->end && *c->p == '\'') {
        s->lead = NO_LEAD;
        return open_quoted(x, c, '\'', 1);
    }
    if (x->piece == INSERT)
        return GO;
    int64_t length = at(c, c->p) - x->start;
    int first = length == (int64_t)x->word.length; /* nothing before it, not even `(` */
    Keyword keyword = keyword_of(&x->word);
    s->last = token_of(keyword, last);
    if (dialect->word)
        dialect->word(x, keyword, last, first);
    if (first && begins_insert(dialect, keyword))
        s->lead = NAMES;
    if (s->lead == NO_LEAD)
        return GO;
    if (length > (int64_t)x->lead_limit || keyword == KEY_SELECT)
        s->lead = NO_LEAD;
    else if (s->lead == NAMES && last != AFTER_INTO && last != AFTER_DOT && begins_values(dialect, keyword))
        return open_rows(x, c);
    return GO;
}

/* Adds the `length` bytes at p, behind which the buffer has others up to `end`. */
static void
add_to_word(Word *word, const unsigned char *p, size_t length, const unsigned char *end)
{
    if (word->length == 0 && end - p >= WORD_LIMIT)
        memcpy(word->text, p, WORD_LIMIT); /* of a fixed length: no call */
    else
        for (size_t i = 0; i < length && word->length + i < WORD_LIMIT; i++)
            word->text[word->length + i] = p[i];
    word->length += length;
}

Answer
in_word(Lexer *x, Cursor *c)
{
    const unsigned char *p = c->p, *end = c->end;
    const unsigned char delimiter = x->delimiter[0];
    Found found = NO;
    for (; p < end && x->traits[*p] & WORD; p++) {
        /* The mysql client looks for the delimiter within words too. */
        if (*p == delimiter && (found = delimiter_at(x, c, p)) != NO)
            break;
    }
    add_to_word(&x->word, c->p, (size_t)(p - c->p), end);
    c->p = p;
    if (found == UNDECIDED)
        return MORE;
    return p < end ? word_end(x, c) : GO;
}
