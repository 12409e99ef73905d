/* conform - the line protocol of CONFORMANCE.md section 3, implemented with fedmrn.h.
 *
 * The response to a request that is no JSON object, that lacks a member or has one of the wrong type, is the error
 * "request". If a request needs more memory than is available, it is "memory". Neither is a code of the format.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FEDMRN_IMPLEMENTATION
#include "fedmrn.h"

/* ---------------------------------------- memory ---------------------------------------- */

/* The memory allocated for a request is kept in a list and freed after the response. */
typedef struct block {
    struct block *next;
    double align; /* so that the memory after it is aligned for every type used here */
} block;

static block *held;

/* Memory for `count` items of `size` bytes; NULL if there is not enough. */
static void *take_memory(size_t count, size_t size)
{
    block *b;
    if (size && count > (SIZE_MAX - sizeof *b) / size) return NULL;
    b = malloc(sizeof *b + count * size);
    if (!b) return NULL;
    b->next = held;
    held = b;
    return b + 1;
}

static void give_back_memory(void)
{
    while (held) {
        block *b = held;
        held = b->next;
        free(b);
    }
}

/* A text that can grow, for input and output lines. */
typedef struct {
    char *text;
    size_t length, capacity;
} buffer;

static void grow(buffer *b, size_t more)
{
    size_t wanted = b->length + more;
    char *text;
    if (wanted <= b->capacity) return;
    if (wanted < 2 * b->capacity) wanted = 2 * b->capacity;
    text = realloc(b->text, wanted);
    if (!text) {
        fputs("conform: out of memory\n", stderr);
        exit(1);
    }
    b->text = text;
    b->capacity = wanted;
}

static void put_char(buffer *b, char c)
{
    if (b->length == b->capacity) grow(b, 256);
    b->text[b->length++] = c;
}

static void put_text(buffer *b, const char *text, size_t length)
{
    grow(b, length);
    memcpy(b->text + b->length, text, length);
    b->length += length;
}

static void put(buffer *b, const char *text) { put_text(b, text, strlen(text)); }

/* ---------------------------------------- JSON (RFC 8259) ---------------------------------------- */

typedef enum { ABSENT, NOTHING, FALSE_, TRUE_, NUMBER, STRING, LIST, OBJECT } json_type;

/* A value; `first` is the first value of a list or an object, and `next` links each value to the following one. */
typedef struct json {
    json_type type;
    const char *text; /* of a number, its characters; of a string, decoded, in the line itself */
    size_t length;    /* of the text; of a list or an object, the number of values */
    const char *name; /* of a member */
    size_t name_length;
    struct json *first, *next;
} json;

typedef struct {
    char *at, *end;
    int depth;
} reader;

#define DEEPEST 64

static void skip_space(reader *r)
{
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\t' || *r->at == '\r' || *r->at == '\n')) r->at++;
}

static int skip_char(reader *r, char c)
{
    skip_space(r);
    if (r->at == r->end || *r->at != c) return 0;
    r->at++;
    return 1;
}

static int skip_word(reader *r, const char *word)
{
    size_t n = strlen(word);
    if ((size_t)(r->end - r->at) < n || memcmp(r->at, word, n) != 0) return 0;
    r->at += n;
    return 1;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* The four digits of \uXXXX, or -1. */
static long read_unit(reader *r)
{
    long unit = 0;
    int k;
    if (r->end - r->at < 4) return -1;
    for (k = 0; k < 4; k++) {
        int digit = hex_digit(*r->at++);
        if (digit < 0) return -1;
        unit = unit * 16 + digit;
    }
    return unit;
}

/* A character of 2 or 3 units as UTF-8. It is never longer than its \u escape. */
static char *put_utf8(char *p, long c)
{
    if (c < 0x80) {
        *p++ = (char)c;
        return p;
    }
    if (c < 0x800) {
        *p++ = (char)(0xC0 | c >> 6);
    } else {
        if (c < 0x10000) {
            *p++ = (char)(0xE0 | c >> 12);
        } else {
            *p++ = (char)(0xF0 | c >> 18);
            *p++ = (char)(0x80 | (c >> 12 & 63));
        }
        *p++ = (char)(0x80 | (c >> 6 & 63));
    }
    *p++ = (char)(0x80 | (c & 63));
    return p;
}

/* Decodes what follows a backslash; NULL if it is no escape. */
static char *read_escape(reader *r, char *p)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *found;
    long unit, low;
    char c = *r->at++;
    if (c == 'u') {
        unit = read_unit(r);
        if (unit < 0 || (unit >= 0xDC00 && unit <= 0xDFFF)) return NULL;
        if (unit >= 0xD800 && unit <= 0xDBFF) {
            if (!skip_word(r, "\\u")) return NULL;
            low = read_unit(r);
            if (low < 0xDC00 || low > 0xDFFF) return NULL;
            unit = 0x10000 + (unit - 0xD800) * 0x400 + (low - 0xDC00);
        }
        return put_utf8(p, unit);
    }
    found = c ? strchr(from, c) : NULL;
    if (!found) return NULL;
    *p++ = to[found - from];
    return p;
}

/* Decodes a string in place. */
static int read_string(reader *r, const char **text, size_t *length)
{
    char *p;
    if (!skip_char(r, '"')) return 0;
    *text = p = r->at;
    while (r->at < r->end && *r->at != '"') {
        if ((unsigned char)*r->at < 0x20) return 0;
        if (*r->at != '\\') {
            *p++ = *r->at++;
            continue;
        }
        if (++r->at == r->end) return 0;
        p = read_escape(r, p);
        if (!p) return 0;
    }
    if (r->at == r->end) return 0;
    r->at++;
    *length = (size_t)(p - *text);
    return 1;
}

static int skip_digits(reader *r)
{
    char *from = r->at;
    while (r->at < r->end && *r->at >= '0' && *r->at <= '9') r->at++;
    return r->at > from;
}

static int read_number(reader *r, json *value)
{
    char *from = r->at;
    if (r->at < r->end && *r->at == '-') r->at++;
    if (r->at < r->end && *r->at == '0') r->at++;
    else if (!skip_digits(r)) return 0;
    if (r->at < r->end && *r->at == '.') {
        r->at++;
        if (!skip_digits(r)) return 0;
    }
    if (r->at < r->end && (*r->at == 'e' || *r->at == 'E')) {
        r->at++;
        if (r->at < r->end && (*r->at == '+' || *r->at == '-')) r->at++;
        if (!skip_digits(r)) return 0;
    }
    value->type = NUMBER;
    value->text = from;
    value->length = (size_t)(r->at - from);
    return 1;
}

static json *read_value(reader *r);

/* The values of a list (close is ']') or the members of an object ('}'). */
static int read_values(reader *r, json *whole, char close)
{
    json **last = &whole->first;
    if (skip_char(r, close)) return 1;
    do {
        const char *name = NULL;
        size_t name_length = 0;
        if (close == '}' && !(read_string(r, &name, &name_length) && skip_char(r, ':'))) return 0;
        *last = read_value(r);
        if (!*last) return 0;
        (*last)->name = name;
        (*last)->name_length = name_length;
        last = &(*last)->next;
        whole->length++;
    } while (skip_char(r, ','));
    return skip_char(r, close);
}

static int read_any(reader *r, json *value)
{
    int right;
    skip_space(r);
    if (r->at == r->end) return 0;
    switch (*r->at) {
    case '"':
        value->type = STRING;
        return read_string(r, &value->text, &value->length);
    case '[':
    case '{':
        value->type = *r->at == '[' ? LIST : OBJECT;
        if (++r->depth > DEEPEST) return 0;
        r->at++;
        right = read_values(r, value, value->type == LIST ? ']' : '}');
        r->depth--;
        return right;
    case 'n':
        value->type = NOTHING;
        return skip_word(r, "null");
    case 't':
        value->type = TRUE_;
        return skip_word(r, "true");
    case 'f':
        value->type = FALSE_;
        return skip_word(r, "false");
    default:
        return read_number(r, value);
    }
}

static json *read_value(reader *r)
{
    json *value = take_memory(1, sizeof *value);
    if (!value) return NULL;
    memset(value, 0, sizeof *value);
    value->first = value->next = NULL;
    value->text = value->name = NULL;
    return read_any(r, value) ? value : NULL;
}

static const json *parse(char *line, size_t length)
{
    reader r;
    const json *value;
    if (!fedmrn__utf8((const uint8_t *)line, length)) return NULL;
    r.at = line;
    r.end = line + length;
    r.depth = 0;
    value = read_value(&r);
    skip_space(&r);
    return value && r.at == r.end && value->type == OBJECT ? value : NULL;
}

static const json *member(const json *object, const char *name)
{
    static const json absent = {ABSENT, NULL, 0, NULL, 0, NULL, NULL};
    const json *m = object->type == OBJECT ? object->first : NULL;
    for (; m; m = m->next)
        if (m->name_length == strlen(name) && memcmp(m->name, name, m->name_length) == 0) return m;
    return &absent;
}

static int is_given(const json *value) { return value->type != ABSENT && value->type != NOTHING; }

/* Whether a value is a number without fraction or exponent. */
static int is_whole(const json *value)
{
    size_t k;
    for (k = 0; value->type == NUMBER && k < value->length; k++)
        if (value->text[k] != '-' && (value->text[k] < '0' || value->text[k] > '9')) return 0;
    return value->type == NUMBER;
}

static int is_text(const json *value, const char *text)
{
    return value->type == STRING && value->length == strlen(text) && memcmp(value->text, text, value->length) == 0;
}

/* ---------------------------------------- values of the protocol ---------------------------------------- */

/* The request being processed; only its first failure is kept. */
typedef struct {
    const json *request;
    const char *error;
} task;

static void fail(task *t, const char *error)
{
    if (!t->error) t->error = error;
}

/* Records a status of the format; OK is no failure. Returns whether there is no failure so far. */
static int check(task *t, fedmrn_code code)
{
    if (code) fail(t, fedmrn_code_text(code));
    return t->error == NULL;
}

static void *allocate(task *t, size_t count, size_t size)
{
    void *memory = take_memory(count, size);
    if (!memory) fail(t, "memory");
    return memory;
}

/* Digits of the given base, at most 2^128 - 1 (high 2^64 + low). */
static int parse_digits(const char *text, size_t length, unsigned base, uint64_t *high, uint64_t *low)
{
    size_t k;
    *high = *low = 0;
    for (k = 0; k < length; k++) {
        int digit = hex_digit(text[k]);
        uint64_t bottom, carry;
        if (digit < 0 || (unsigned)digit >= base || *high > UINT64_MAX / base - 1) return 0;
        bottom = (*low & 0xFFFFFFFFu) * base + (unsigned)digit;
        carry = (*low >> 32) * base + (bottom >> 32);
        *low = carry << 32 | (bottom & 0xFFFFFFFFu);
        *high = *high * base + (carry >> 32);
    }
    return length > 0;
}

/* A string such as "0x7". */
static int parse_hexadecimal(const json *value, uint64_t *high, uint64_t *low)
{
    if (value->type != STRING || value->length < 3 || value->text[0] != '0' || (value->text[1] | 32) != 'x') return 0;
    return parse_digits(value->text + 2, value->length - 2, 16, high, low);
}

static uint64_t u64_of(task *t, const json *value)
{
    uint64_t high = 0, low = 0;
    if (!parse_hexadecimal(value, &high, &low) || high) fail(t, "request");
    return low;
}

static uint64_t u64(task *t, const char *name) { return u64_of(t, member(t->request, name)); }

/* A number without sign, fraction or exponent. */
static uint64_t number(task *t, const char *name)
{
    const json *value = member(t->request, name);
    uint64_t high = 0, low = 0;
    if (value->type != NUMBER || !parse_digits(value->text, value->length, 10, &high, &low) || high) fail(t, "request");
    return low;
}

static size_t size_of(task *t, const char *name)
{
    uint64_t value = number(t, name);
    if (value > SIZE_MAX) fail(t, "memory");
    return t->error ? 0 : (size_t)value;
}

static uint32_t u32(task *t, uint64_t wide)
{
    if (wide > 0xFFFFFFFFu) fail(t, "request");
    return (uint32_t)wide;
}

static uint32_t scale_of(task *t, const json *value) { return u32(t, u64_of(t, value)); }

static uint32_t round_of(task *t) { return u32(t, number(t, "round")); }

/* The code of a name. */
static uint8_t name_of(task *t, const json *value, const char *const *names)
{
    unsigned k;
    for (k = 0; names[k]; k++)
        if (*names[k] && is_text(value, names[k])) return (uint8_t)k;
    fail(t, "request");
    return 255;
}

static uint8_t distribution_of(task *t, const json *value)
{
    static const char *const names[] = {"", "uniform", "gaussian", "bernoulli", NULL};
    return name_of(t, value, names);
}

static uint8_t kind_of(task *t, const json *value)
{
    static const char *const names[] = {"dense", "binary", "signed", "grid", NULL};
    return name_of(t, value, names);
}

static uint8_t coding_of(task *t, const json *value)
{
    static const char *const names[] = {"raw", "rans", "float16", "bfloat16", "rans12", "rans14", NULL};
    return is_given(value) ? name_of(t, value, names) : 0;
}

typedef struct {
    const uint8_t *bytes;
    size_t length;
} span;

static int base64_digit(char c)
{
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static size_t base64_padding(const char *text, size_t length)
{
    size_t pad = 0;
    while (pad < 2 && pad < length && text[length - 1 - pad] == '=') pad++;
    return pad;
}

/* Base64 of RFC 4648 section 4, with a length that is a multiple of 4. 0 if the text is not valid. */
static int base64_decode(const char *text, size_t length, size_t pad, uint8_t *out)
{
    size_t k;
    uint32_t group = 0;
    for (k = 0; k < length; k++) {
        int digit = k >= length - pad ? 0 : base64_digit(text[k]);
        if (digit < 0) return 0;
        group = group << 6 | (uint32_t)digit;
        if (k % 4 == 3) {
            uint32_t unused = pad && k == length - 1 ? (pad == 2 ? 0xFFFFu : 0xFFu) : 0;
            if (group & unused) return 0;
            *out++ = (uint8_t)(group >> 16);
            if (!(unused & 0xFF00u)) *out++ = (uint8_t)(group >> 8);
            if (!unused) *out++ = (uint8_t)group;
            group = 0;
        }
    }
    return 1;
}

static span bytes_of(task *t, const json *value)
{
    span s = {NULL, 0};
    uint8_t *out;
    size_t pad;
    if (value->type != STRING || value->length % 4) {
        fail(t, "request");
        return s;
    }
    pad = base64_padding(value->text, value->length);
    out = allocate(t, value->length / 4 * 3 - pad, 1);
    if (!out) return s;
    if (!base64_decode(value->text, value->length, pad, out)) fail(t, "request");
    s.bytes = out;
    s.length = t->error ? 0 : value->length / 4 * 3 - pad;
    return s;
}

static span bytes(task *t, const char *name) { return bytes_of(t, member(t->request, name)); }

static void put_base64(buffer *b, const uint8_t *p, size_t length)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t k;
    grow(b, length / 3 * 4 + 8);
    put_char(b, '"');
    for (k = 0; k < length; k += 3) {
        size_t left = length - k;
        uint32_t group = (uint32_t)p[k] << 16;
        if (left > 1) group |= (uint32_t)p[k + 1] << 8;
        if (left > 2) group |= p[k + 2];
        put_char(b, digits[group >> 18]);
        put_char(b, digits[group >> 12 & 63]);
        put_char(b, left > 1 ? digits[group >> 6 & 63] : '=');
        put_char(b, left > 2 ? digits[group & 63] : '=');
    }
    put_char(b, '"');
}

/* Converts elements between this machine's byte order and little-endian: a big-endian machine reverses their bytes. */
static void turn(void *elements, size_t size, size_t count)
{
    const uint16_t one = 1;
    uint8_t *p = elements, low;
    size_t k;
    memcpy(&low, &one, 1);
    if (low) return;
    for (; count--; p += size) {
        for (k = 0; k < size / 2; k++) {
            uint8_t byte = p[k];
            p[k] = p[size - 1 - k];
            p[size - 1 - k] = byte;
        }
    }
}

static void put_elements(buffer *out, const char *name, void *elements, size_t size, size_t count)
{
    turn(elements, size, count);
    put(out, "{\"");
    put(out, name);
    put(out, "\":");
    put_base64(out, elements, size * count);
    put(out, "}");
}

/* The elements of a request's bytes; `size` bytes each. */
static void *elements(task *t, const char *name, size_t size, size_t *count)
{
    span s = bytes(t, name);
    void *p;
    *count = s.length / size;
    if (s.length % size) fail(t, "request");
    p = allocate(t, *count, size);
    if (p && *count) memcpy(p, s.bytes, *count * size);
    if (p) turn(p, size, *count);
    return p;
}

static int schema_of(task *t, fedmrn_schema *schema)
{
    span s = bytes(t, "schema");
    size_t need = fedmrn_schema_need(s.bytes, s.length);
    fedmrn_tensor *tensors = t->error ? NULL : allocate(t, need, sizeof *tensors);
    if (!tensors) return 0;
    return check(t, fedmrn_schema_read(schema, s.bytes, s.length, tensors, need).code);
}

/* ---------------------------------------- operations ---------------------------------------- */

static void op_hello(task *t, buffer *out)
{
    (void)t;
    put(out, "{\"name\":\"fedmrn.h\",\"version\":\"1.4\",\"profiles\":");
    put(out, "[\"decode\",\"encode\",\"aggregate\",\"tally\"]}");
}

/* The largest number of elements of a tensor (9.1). */
#define MOST_ELEMENTS ((uint64_t)1 << 48)

static void op_words(task *t, buffer *out)
{
    uint64_t seed = u64(t, "seed"), stream = u64(t, "stream"), high = 0, low = 0;
    size_t count = size_of(t, "count");
    uint64_t end, end_high;
    uint32_t *words;
    if (!parse_hexadecimal(member(t->request, "start"), &high, &low) || high > 4) fail(t, "request");
    end = low + count;
    end_high = high + (end < low);
    if (end_high > 4 || (end_high == 4 && end > 0)) fail(t, "request"); /* beyond 2^66 */
    if (t->error) return;
    words = allocate(t, count, sizeof *words);
    if (!words) return;
    fedmrn_words(seed, stream, high << 62 | low >> 2, (unsigned)(low & 3), count, words);
    put_elements(out, "words", words, sizeof *words, count);
}

static void op_noise(task *t, buffer *out)
{
    uint8_t distribution = distribution_of(t, member(t->request, "distribution"));
    uint32_t scale_bits = scale_of(t, member(t->request, "scale"));
    uint64_t seed = u64(t, "seed"), stream = u64(t, "stream"), start = u64(t, "start");
    size_t count = size_of(t, "count");
    float *noise;
    if (start > MOST_ELEMENTS || count > MOST_ELEMENTS - start) fail(t, "request");
    if (t->error || !check(t, fedmrn_check_scale(distribution, scale_bits))) return;
    noise = allocate(t, count, sizeof *noise);
    if (!noise) return;
    fedmrn_noise(distribution, scale_bits, seed, stream, start, count, noise);
    put_elements(out, "noise", noise, sizeof *noise, count);
}

static void op_digest(task *t, buffer *out)
{
    fedmrn_schema schema;
    if (schema_of(t, &schema)) put_elements(out, "digest", schema.digest, 1, 16);
}

static int frame_memory(task *t, span frame, const fedmrn_demands *demands, fedmrn_memory *memory)
{
    *memory = fedmrn_frame_need(frame.bytes, frame.length, demands);
    memory->tensors = allocate(t, memory->tensor_capacity, sizeof *memory->tensors);
    memory->entries = allocate(t, memory->entry_capacity, sizeof *memory->entries);
    return t->error == NULL;
}

/* An expected value, unless it is null or absent. */
static int wanted(task *t, const char *name, uint64_t (*get)(task *, const char *), uint64_t *value)
{
    if (!is_given(member(t->request, name))) return 0;
    *value = get(t, name);
    return 1;
}

static fedmrn_demands demands_of(task *t, fedmrn_schema *schema)
{
    fedmrn_demands demands = fedmrn_no_demands();
    if (is_given(member(t->request, "schema")) && schema_of(t, schema)) demands.schema = schema;
    demands.wants_round = wanted(t, "round", number, &demands.round);
    if (demands.wants_round) u32(t, demands.round);
    demands.wants_base_model = wanted(t, "base_model", u64, &demands.base_model);
    demands.wants_seed = wanted(t, "seed", u64, &demands.seed);
    demands.max_tensors = number(t, "max_tensors");
    demands.max_schema_bytes = number(t, "max_schema_bytes");
    demands.max_elements = number(t, "max_elements");
    return demands;
}

/* A list of all tensors, each made by `get` (decode or mean). */
typedef fedmrn_code getter(const void *from, uint32_t tensor, void *out, size_t count);

static void put_tensors(task *t, buffer *out, const fedmrn_schema *schema, getter *get, const void *from)
{
    uint32_t k;
    put(out, "[");
    for (k = 0; k < schema->count; k++) {
        const fedmrn_tensor *tensor = &schema->tensors[k];
        size_t size = fedmrn_dtype_size(tensor->dtype), count = (size_t)tensor->elements;
        int fits = count == tensor->elements && count <= (SIZE_MAX - 1) / size;
        void *values = fits ? malloc(count * size + 1) : NULL;
        if (!values) fail(t, "memory");
        if (values && check(t, get(from, k, values, count))) {
            if (k) put(out, ",");
            turn(values, size, count);
            put_base64(out, values, count * size);
        }
        free(values);
        if (t->error) return;
    }
    put(out, "]");
}

static fedmrn_code get_decoded(const void *from, uint32_t tensor, void *out, size_t count)
{
    return fedmrn_frame_decode(from, tensor, 0, count, out);
}

static fedmrn_code get_mean(const void *from, uint32_t tensor, void *out, size_t count)
{
    return fedmrn_sum_mean(from, tensor, 0, count, out);
}

static void op_decode(task *t, buffer *out)
{
    fedmrn_schema schema;
    fedmrn_demands demands = demands_of(t, &schema);
    fedmrn_memory memory;
    fedmrn_frame frame;
    span s = bytes(t, "frame");
    if (t->error || !frame_memory(t, s, &demands, &memory)) return;
    if (!check(t, fedmrn_frame_read(&frame, s.bytes, s.length, &demands, &memory).code)) return;
    put(out, "{\"tensors\":");
    put_tensors(t, out, frame.schema, get_decoded, &frame);
    put(out, "}");
}

static void op_sample(task *t, buffer *out)
{
    uint8_t kind = kind_of(t, member(t->request, "kind"));
    uint8_t distribution = distribution_of(t, member(t->request, "distribution"));
    uint32_t scale_bits = scale_of(t, member(t->request, "scale"));
    uint64_t seed = u64(t, "seed"), stream = u64(t, "stream");
    size_t count = 0, draw_count = 0, mask_bytes, k;
    float *update = elements(t, "update", sizeof *update, &count);
    uint32_t *draws = elements(t, "draws", sizeof *draws, &draw_count);
    uint8_t *mask;
    if (count != draw_count || (kind != FEDMRN_KIND_BINARY && kind != FEDMRN_KIND_SIGNED)) fail(t, "request");
    for (k = 0; !t->error && k < draw_count; k++)
        if (draws[k] >> 24) fail(t, "request");
    mask_bytes = count / 8 + (count % 8 != 0);
    mask = t->error ? NULL : allocate(t, mask_bytes, 1);
    if (!mask) return;
    if (check(t, fedmrn_sample(kind, distribution, scale_bits, seed, stream, 0, count, update, draws, mask).code))
        put_elements(out, "mask", mask, 1, mask_bytes);
}

static fedmrn_entry entry_of(task *t, const json *value, unsigned dtype)
{
    fedmrn_entry e;
    span payload = bytes_of(t, member(value, "payload"));
    memset(&e, 0, sizeof e);
    e.kind = kind_of(t, member(value, "kind"));
    e.coding = coding_of(t, member(value, "coding"));
    e.payload = payload.bytes;
    e.length = payload.length;
    e.type = (uint8_t)dtype;
    if (e.kind == FEDMRN_KIND_BINARY || e.kind == FEDMRN_KIND_SIGNED)
        e.type = distribution_of(t, member(value, "distribution"));
    if (e.kind >= FEDMRN_KIND_BINARY && e.kind <= FEDMRN_KIND_GRID) e.scale_bits = scale_of(t, member(value, "scale"));
    return e;
}

static void op_encode(task *t, buffer *out)
{
    fedmrn_schema schema;
    fedmrn_update update;
    fedmrn_entry *entries;
    const json *list = member(t->request, "tensors"), *value, *embed = member(t->request, "embed_schema");
    uint8_t *frame;
    size_t size = 0, k = 0;
    memset(&update, 0, sizeof update);
    update.seed = u64(t, "seed");
    update.base_model = u64(t, "base_model");
    update.round = round_of(t);
    update.embed_schema = embed->type == TRUE_;
    if (list->type != LIST || (embed->type != TRUE_ && embed->type != FALSE_)) fail(t, "request");
    if (t->error || !schema_of(t, &schema)) return;
    entries = allocate(t, list->length, sizeof *entries);
    if (!entries) return;
    for (value = list->first; value; value = value->next, k++)
        entries[k] = entry_of(t, value, k < schema.count ? schema.tensors[k].dtype : 0);
    update.schema = &schema;
    update.entries = entries;
    update.entry_count = list->length;
    if (t->error || !check(t, fedmrn_frame_size(&update, &size))) return;
    frame = allocate(t, size, 1);
    if (frame && check(t, fedmrn_frame_write(&update, frame, size))) put_elements(out, "frame", frame, 1, size);
}

static int sum_of(task *t, fedmrn_sum *sum, const fedmrn_schema *schema, uint64_t base_model, uint32_t round)
{
    size_t slots = 0, cells = 0;
    fedmrn_slot *slot_memory;
    int64_t *cell_memory;
    if (!check(t, fedmrn_sum_need(schema, &slots, &cells))) return 0;
    slot_memory = allocate(t, slots, sizeof *slot_memory);
    cell_memory = allocate(t, cells, sizeof *cell_memory);
    if (t->error) return 0;
    fedmrn_sum_init(sum, schema, base_model, round, slot_memory, cell_memory);
    return 1;
}

static void put_sum(task *t, buffer *out, const fedmrn_sum *sum)
{
    size_t size = 0;
    uint8_t *partial;
    if (!check(t, fedmrn_sum_size(sum, &size))) return;
    partial = allocate(t, size, 1);
    if (!partial || !check(t, fedmrn_sum_write(sum, partial, size))) return;
    put(out, "{\"partial\":");
    put_base64(out, partial, size);
    put(out, ",\"mean\":");
    put_tensors(t, out, sum->schema, get_mean, sum);
    put(out, "}");
}

/* Decimal, possibly negative. Anything but a positive u64 becomes 0, which every sum refuses. */
static uint64_t weight_of(task *t, const json *value)
{
    uint64_t high = 0, low = 0;
    size_t sign = value->length && value->text && value->text[0] == '-', k;
    if (value->type != STRING || value->length == sign) fail(t, "request");
    else
        for (k = sign; k < value->length; k++)
            if (value->text[k] < '0' || value->text[k] > '9') fail(t, "request");
    if (t->error || sign || !parse_digits(value->text, value->length, 10, &high, &low) || high) return 0;
    return low;
}

/* The first frame is read before memory is allocated for the sums: a frame that passes has payloads for its schema,
 * so its length limits that memory. */
static int first_frame_passes(task *t, span s, uint64_t weight, const fedmrn_demands *demands)
{
    fedmrn_memory memory;
    fedmrn_frame frame;
    if (weight == 0 || weight >> 39) return check(t, FEDMRN_AGGREGATE);
    if (!frame_memory(t, s, demands, &memory)) return 0;
    return check(t, fedmrn_frame_read(&frame, s.bytes, s.length, demands, &memory).code);
}

static void op_aggregate(task *t, buffer *out)
{
    fedmrn_schema schema;
    fedmrn_demands demands = fedmrn_no_demands();
    fedmrn_sum sum;
    int first = 1;
    const json *frame = member(t->request, "frames"), *weight = member(t->request, "weights");
    uint64_t base_model = u64(t, "base_model");
    uint32_t round = round_of(t);
    if (frame->type != LIST || weight->type != LIST || frame->length != weight->length) fail(t, "request");
    if (t->error || !schema_of(t, &schema)) return;
    if (!frame->first) check(t, FEDMRN_AGGREGATE);
    demands.schema = &schema;
    demands.wants_round = (demands.round = round) != 0;
    demands.wants_base_model = (demands.base_model = base_model) != 0;
    weight = weight->first;
    for (frame = frame->first; frame; frame = frame->next, weight = weight->next) {
        span s = bytes_of(t, frame);
        uint64_t w = weight_of(t, weight);
        fedmrn_memory memory;
        if (t->error) return;
        if (first && !first_frame_passes(t, s, w, &demands)) return;
        if (first && !sum_of(t, &sum, &schema, base_model, round)) return;
        first = 0;
        if (!frame_memory(t, s, &demands, &memory)) return;
        if (!check(t, fedmrn_sum_add(&sum, s.bytes, s.length, w, &demands, &memory).code)) return;
    }
    if (!t->error) put_sum(t, out, &sum);
}

/* All partial sums are read before the first is added: a bad one among them leaves no half of a sum. */
static void op_merge(task *t, buffer *out)
{
    fedmrn_schema schema;
    fedmrn_partial *partials;
    fedmrn_sum sum;
    const json *list = member(t->request, "partials"), *value;
    size_t count = 0, k;
    if (list->type != LIST || !list->first) fail(t, "request");
    if (t->error || !schema_of(t, &schema)) return;
    partials = allocate(t, list->length, sizeof *partials);
    for (value = list->first; value && !t->error; value = value->next) {
        span s = bytes_of(t, value);
        if (!t->error) check(t, fedmrn_partial_read(&partials[count++], s.bytes, s.length, &schema).code);
    }
    if (t->error || !sum_of(t, &sum, &schema, partials[0].base_model, partials[0].round)) return;
    for (k = 0; k < count; k++)
        if (!check(t, fedmrn_sum_merge(&sum, &partials[k]))) return;
    put_sum(t, out, &sum);
}

/* ---------------------------------------- tallies ---------------------------------------- */

/* The coding of a tally's masked tensors. */
static uint8_t tally_coding(task *t)
{
    uint8_t coding = coding_of(t, member(t->request, "coding"));
    if (coding != FEDMRN_CODING_RAW && coding != FEDMRN_CODING_RANS14) fail(t, "request");
    return coding;
}

/* A list of one or more. */
static const json *list_of(task *t, const char *name)
{
    const json *list = member(t->request, name);
    if (list->type != LIST || !list->first) fail(t, "request");
    return list;
}

static int tally_of(task *t, fedmrn_tally *tally, const fedmrn_schema *schema, uint64_t weight, uint64_t base_model,
                    uint32_t round)
{
    size_t slots = 0, counts = 0, limbs = 0;
    fedmrn_tally_slot *slot_memory;
    uint32_t *count_memory;
    int64_t *limb_memory;
    if (!check(t, fedmrn_tally_need(schema, &slots, &counts, &limbs))) return 0;
    slot_memory = allocate(t, slots, sizeof *slot_memory);
    count_memory = allocate(t, counts, sizeof *count_memory);
    limb_memory = allocate(t, limbs, sizeof *limb_memory);
    if (t->error) return 0;
    fedmrn_tally_init(tally, schema, weight, base_model, round, slot_memory, count_memory, limb_memory);
    return 1;
}

static void put_tally(task *t, buffer *out, const fedmrn_tally *tally, uint8_t coding)
{
    size_t size = 0;
    uint8_t *bytes;
    if (!check(t, fedmrn_tally_size(tally, coding, &size))) return;
    bytes = allocate(t, size, 1);
    if (bytes && check(t, fedmrn_tally_write(tally, coding, bytes, size))) put_elements(out, "tally", bytes, 1, size);
}

static void op_tally(task *t, buffer *out)
{
    fedmrn_schema schema;
    fedmrn_demands demands = fedmrn_no_demands();
    fedmrn_tally tally;
    const json *list = list_of(t, "frames"), *frame;
    uint64_t weight = weight_of(t, member(t->request, "weight")), base_model = u64(t, "base_model");
    uint32_t round = round_of(t);
    uint8_t coding = tally_coding(t);
    if (t->error || !schema_of(t, &schema)) return;
    demands.schema = &schema;
    demands.wants_round = (demands.round = round) != 0;
    demands.wants_base_model = (demands.base_model = base_model) != 0;
    for (frame = list->first; frame; frame = frame->next) {
        span s = bytes_of(t, frame);
        fedmrn_memory memory;
        if (t->error) return;
        if (frame == list->first) {
            if (!first_frame_passes(t, s, weight, &demands)) return;
            if (!tally_of(t, &tally, &schema, weight, base_model, round)) return;
        }
        if (!frame_memory(t, s, &demands, &memory)) return;
        if (!check(t, fedmrn_tally_add(&tally, s.bytes, s.length, &demands, &memory).code)) return;
    }
    put_tally(t, out, &tally, coding);
}

/* All tallies are read before the first is added. */
static void op_merge_tallies(task *t, buffer *out)
{
    fedmrn_schema schema;
    fedmrn_tally_view *views;
    fedmrn_tally tally;
    const json *list = list_of(t, "tallies"), *value;
    uint8_t coding = tally_coding(t);
    size_t count = 0, k;
    if (t->error || !schema_of(t, &schema)) return;
    views = allocate(t, list->length, sizeof *views);
    for (value = list->first; value && !t->error; value = value->next) {
        span s = bytes_of(t, value);
        if (!t->error) check(t, fedmrn_tally_read(&views[count++], s.bytes, s.length, &schema, NULL).code);
    }
    if (t->error) return;
    if (!tally_of(t, &tally, &schema, views[0].weight, views[0].base_model, views[0].round)) return;
    for (k = 0; k < count; k++)
        if (!check(t, fedmrn_tally_merge(&tally, &views[k]))) return;
    put_tally(t, out, &tally, coding);
}

static void op_add_tallies(task *t, buffer *out)
{
    fedmrn_schema schema;
    fedmrn_sum sum;
    const json *list = list_of(t, "tallies"), *value;
    uint64_t base_model = u64(t, "base_model"), seed = 0;
    uint32_t round = round_of(t);
    int seeded = wanted(t, "seed", u64, &seed);
    if (t->error || !schema_of(t, &schema)) return;
    for (value = list->first; value; value = value->next) {
        span s = bytes_of(t, value);
        fedmrn_tally_view view;
        if (t->error || !check(t, fedmrn_tally_read(&view, s.bytes, s.length, &schema, seeded ? &seed : NULL).code))
            return;
        if (value == list->first && !sum_of(t, &sum, &schema, base_model, round)) return;
        if (!check(t, fedmrn_sum_add_tally(&sum, &view))) return;
    }
    put_sum(t, out, &sum);
}

/* ---------------------------------------- lines ---------------------------------------- */

typedef struct {
    const char *name;
    void (*run)(task *, buffer *);
} operation;

static const operation operations[] = {
    {"hello", op_hello},   {"words", op_words},   {"noise", op_noise},
    {"digest", op_digest}, {"decode", op_decode}, {"sample", op_sample},
    {"encode", op_encode}, {"merge", op_merge},   {"aggregate", op_aggregate},
    {"tally", op_tally},   {"merge_tallies", op_merge_tallies}, {"add_tallies", op_add_tallies},
};

static void put_error(buffer *out, const char *error)
{
    put(out, "\"error\":\"");
    put(out, error);
    put(out, "\"}\n");
}

static void answer(buffer *out, const json *request)
{
    const json *id = request ? member(request, "id") : NULL, *op = request ? member(request, "op") : NULL;
    task t = {request, NULL};
    size_t k, mark;
    int numbered = id && is_whole(id);
    put(out, "{\"id\":");
    if (numbered) put_text(out, id->text, id->length);
    else put(out, "null");
    put(out, ",");
    if (!numbered || op->type != STRING) {
        put_error(out, "request");
        return;
    }
    for (k = 0; k < sizeof operations / sizeof *operations; k++)
        if (is_text(op, operations[k].name)) break;
    if (k == sizeof operations / sizeof *operations) {
        put(out, "\"unsupported\":true}\n");
        return;
    }
    mark = out->length;
    put(out, "\"result\":");
    operations[k].run(&t, out);
    if (t.error) {
        out->length = mark;
        put_error(out, t.error);
    } else {
        put(out, "}\n");
    }
}

/* A line without its end; 0 at the end of the input. */
static int read_line(buffer *line)
{
    int c;
    line->length = 0;
    while ((c = getchar()) != EOF && c != '\n') put_char(line, (char)c);
    return c != EOF || line->length > 0;
}

static int is_blank(const buffer *line)
{
    size_t k;
    for (k = 0; k < line->length; k++)
        if (!strchr(" \t\r", line->text[k]) || !line->text[k]) return 0;
    return 1;
}

int main(void)
{
    buffer line = {NULL, 0, 0}, out = {NULL, 0, 0};
    if (!fedmrn_arithmetic_is_right()) {
        fputs("conform: the floating-point arithmetic of this program is not that of the format\n", stderr);
        return 1;
    }
    while (read_line(&line)) {
        if (is_blank(&line)) continue;
        out.length = 0;
        answer(&out, parse(line.text, line.length));
        give_back_memory();
        if (fwrite(out.text, 1, out.length, stdout) != out.length || fflush(stdout) != 0) return 1;
    }
    free(line.text);
    free(out.text);
    return 0;
}
