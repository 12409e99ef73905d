/* A target of libFuzzer for fedmrn.h: frames, partial sums, tallies, codings, and what follows a server's model.
 *
 *     clang -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -ffp-contract=off -I../../spec/decoders/c fuzz.c
 *     cc -DALONE -fsanitize=address,undefined -fno-sanitize-recover=all -ffp-contract=off -I... fuzz.c   (no libFuzzer)
 *
 * An input is the length of a schema (two bytes), the schema that the reader has, and a frame, a partial sum, a tally,
 * or else an update to encode. Alone, `fuzz COUNT SEED FILE...` changes the files COUNT times, without a look at coverage.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FEDMRN_IMPLEMENTATION
#include "fedmrn.h"

#ifndef MOST_ELEMENTS
#define MOST_ELEMENTS 2048u /* of all tensors: a small input can hold a schema of many millions */
#endif

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed);

/* A finding. */
static void expect(int right, const char *what)
{
    if (right) return;
    fprintf(stderr, "FINDING: %s\n", what);
    abort();
}

/* Memory of exactly this size, so that the sanitizer notices every byte beyond it. */
static void *take(size_t size)
{
    void *memory = malloc(size ? size : 1);
    if (!memory) exit(3);
    return memory;
}

static uint8_t *copy_of(const uint8_t *bytes, size_t length)
{
    uint8_t *copy = take(length);
    if (length) memcpy(copy, bytes, length);
    return copy;
}

static uint64_t elements_of(const fedmrn_schema *schema)
{
    uint64_t total = 0;
    for (uint32_t k = 0; k < schema->count; k++)
        total = total + schema->tensors[k].elements > MOST_ELEMENTS ? MOST_ELEMENTS + 1 : total + schema->tensors[k].elements;
    return total;
}

/* ---------------------------------------- what is accepted ---------------------------------------- */

/* Any range of a tensor is that part of the whole, which is returned. */
static uint8_t *decoded(const fedmrn_frame *frame, uint32_t k)
{
    size_t n = (size_t)frame->schema->tensors[k].elements, size = fedmrn_dtype_size(frame->schema->tensors[k].dtype);
    uint8_t *whole = take(n * size);
    expect(fedmrn_frame_decode(frame, k, 0, n, whole) == FEDMRN_OK, "a checked frame is not decoded");
    size_t from = n / 3, count = n - n / 2 - n / 3;
    uint8_t *part = take(count * size);
    expect(fedmrn_frame_decode(frame, k, from, count, part) == FEDMRN_OK, "a range is not decoded");
    expect(memcmp(part, whole + from * size, count * size) == 0, "a range is not that of the whole");
    free(part);
    return whole;
}

/* The update is added to a model of zeros, which then has an id. */
static void follow(const fedmrn_frame *frame)
{
    const fedmrn_schema *schema = frame->schema;
    void **arrays = take(schema->count * sizeof *arrays);
    for (uint32_t k = 0; k < schema->count; k++) {
        size_t n = (size_t)schema->tensors[k].elements, size = fedmrn_dtype_size(schema->tensors[k].dtype);
        uint8_t *update = decoded(frame, k);
        arrays[k] = take(n * size);
        memset(arrays[k], 0, n * size);
        expect(fedmrn_apply(schema->tensors[k].dtype, n, update, arrays[k]) == FEDMRN_OK, "an update is not added");
        free(update);
    }
    uint64_t id = 0;
    expect(fedmrn_model_id(schema, NULL, (const void *const *)arrays, &id) == FEDMRN_OK && id, "a model has no id");
    for (uint32_t k = 0; k < schema->count; k++) free(arrays[k]);
    free(arrays);
}

/* A frame whose payloads are raw is written as it was read [E-01]. */
static void write_again(const fedmrn_frame *frame)
{
    for (uint32_t k = 0; k < frame->tensor_count; k++)
        if (frame->entries[k].coding != FEDMRN_CODING_RAW) return;
    fedmrn_update update = {frame->schema, frame->entries, frame->tensor_count, frame->seed, frame->base_model,
                            frame->round, frame->flags & 1};
    size_t size = 0;
    expect(fedmrn_frame_size(&update, &size) == FEDMRN_OK, "a frame that was read cannot be written");
    uint8_t *out = take(size);
    expect(fedmrn_frame_write(&update, out, size) == FEDMRN_OK, "a frame that was read is not written");
    expect(size == frame->length && memcmp(out, frame->bytes, size) == 0, "a frame has two forms");
    free(out);
}

typedef struct {
    fedmrn_sum sum;
    fedmrn_slot *slots;
    int64_t *cells;
} holder;

static int hold(holder *h, const fedmrn_schema *schema, uint64_t base_model, uint32_t round)
{
    size_t slots = 0, cells = 0;
    if (fedmrn_sum_need(schema, &slots, &cells)) return 0;
    h->slots = take(slots * sizeof *h->slots);
    h->cells = take(cells * sizeof *h->cells);
    fedmrn_sum_init(&h->sum, schema, base_model, round, h->slots, h->cells);
    return 1;
}

static void let_go(holder *h)
{
    free(h->slots);
    free(h->cells);
}

static uint8_t *written(const fedmrn_sum *sum, size_t *size)
{
    expect(fedmrn_sum_size(sum, size) == FEDMRN_OK, "a sum has no size");
    uint8_t *out = take(*size);
    expect(fedmrn_sum_write(sum, out, *size) == FEDMRN_OK, "a sum is not written");
    return out;
}

static void means(const fedmrn_sum *sum, int forged)
{
    for (uint32_t k = 0; k < sum->schema->count; k++) {
        const fedmrn_tensor *t = &sum->schema->tensors[k];
        uint8_t *out = take((size_t)t->elements * fedmrn_dtype_size(t->dtype));
        fedmrn_code code = fedmrn_sum_mean(sum, k, 0, (size_t)t->elements, out);
        expect(code == FEDMRN_OK || (forged && code == FEDMRN_SUMS), "no mean");
        free(out);
    }
}

/* A partial sum that is read, added to nothing, and written: the same bytes. */
static void read_partial(const fedmrn_schema *schema, const uint8_t *bytes, size_t length, int valid)
{
    fedmrn_partial partial;
    fedmrn_status status = fedmrn_partial_read(&partial, bytes, length, schema);
    expect(!valid || status.code == FEDMRN_OK, "a partial sum that was written is refused");
    expect(status.code == FEDMRN_OK || status.offset <= length, "an error beyond the end");
    if (status.code) return;
    holder h;
    expect(hold(&h, schema, partial.base_model, partial.round), "no sum for a schema whose partial sum was read");
    expect(fedmrn_sum_merge(&h.sum, &partial) == FEDMRN_OK, "a partial sum is not added to nothing");
    size_t size = 0;
    uint8_t *out = written(&h.sum, &size);
    expect(size == length && memcmp(out, bytes, size) == 0, "a partial sum has two forms");
    free(out);
    means(&h.sum, !valid);
    fedmrn_sum_merge(&h.sum, &partial);
    let_go(&h);
}

typedef struct {
    fedmrn_tally tally;
    fedmrn_tally_slot *slots;
    uint32_t *counts;
    int64_t *limbs;
} counter;

static int hold_counts(counter *c, const fedmrn_schema *schema, uint64_t weight, uint64_t base_model, uint32_t round)
{
    size_t slots = 0, counts = 0, limbs = 0;
    if (fedmrn_tally_need(schema, &slots, &counts, &limbs)) return 0;
    c->slots = take(slots * sizeof *c->slots);
    c->counts = take(counts * sizeof *c->counts);
    c->limbs = take(limbs * sizeof *c->limbs);
    fedmrn_tally_init(&c->tally, schema, weight, base_model, round, c->slots, c->counts, c->limbs);
    return 1;
}

static void let_go_counts(counter *c)
{
    free(c->slots);
    free(c->counts);
    free(c->limbs);
}

static uint8_t *written_tally(const fedmrn_tally *tally, unsigned coding, size_t *size)
{
    expect(fedmrn_tally_size(tally, coding, size) == FEDMRN_OK, "a tally has no size");
    uint8_t *out = take(*size);
    expect(fedmrn_tally_write(tally, coding, out, *size) == FEDMRN_OK, "a tally is not written");
    return out;
}

/* Whether the bytes are those of a tally that has the same content and chooses coding 5 where the view has it; it is
 * given raw, and in coding 5 wherever that is shorter. */
static int same_form(const fedmrn_tally_view *view, const uint8_t *raw, const uint8_t *coded)
{
    fedmrn__in in = fedmrn__from(view->bytes, FEDMRN__TALLY_HEADER, view->length), forms[2];
    forms[0] = fedmrn__from(raw, FEDMRN__TALLY_HEADER, SIZE_MAX);
    forms[1] = fedmrn__from(coded, FEDMRN__TALLY_HEADER, SIZE_MAX);
    if (memcmp(view->bytes, raw, FEDMRN__TALLY_HEADER) != 0) return 0;
    for (uint32_t k = 0; k < view->schema->count; k++) {
        const fedmrn_tensor *t = &view->schema->tensors[k];
        size_t at = in.at, chosen = 0;
        if (t->role == FEDMRN_ROLE_MASKED) chosen = in.bytes[at + 2] == FEDMRN_CODING_RANS14;
        size_t begin = forms[chosen].at;
        fedmrn__in *all[3] = {&in, &forms[0], &forms[1]};
        for (int i = 0; i < 3; i++) {
            if (t->role == FEDMRN_ROLE_MASKED) fedmrn__take_counted(all[i]);
            else fedmrn__merge_dense(all[i], t, NULL, 1);
        }
        if (in.at - at != forms[chosen].at - begin) return 0;
        if (memcmp(view->bytes + at, forms[chosen].bytes + begin, in.at - at) != 0) return 0;
    }
    return 1;
}

/* Every count and limb is one that so many frames can have. */
static void bounds(const fedmrn_tally *tally)
{
    for (uint32_t k = 0; k < tally->schema->count; k++) {
        const fedmrn_tally_slot *slot = &tally->slots[k];
        uint64_t cells = fedmrn__cells(&tally->schema->tensors[k]);
        int64_t most = (int64_t)tally->frames * FEDMRN__DIGIT;
        for (size_t i = 0; slot->counts && i < (size_t)cells; i++)
            expect(slot->counts[i] <= tally->frames, "a count of more frames than there are");
        for (size_t i = 0; slot->limbs && i < (size_t)cells; i++)
            expect(slot->limbs[i] <= most && slot->limbs[i] >= -most, "a limb of more frames than there are");
    }
}

static void refuse_tally(counter *c, const fedmrn_tally_view *view, uint64_t *number)
{
    size_t size = 0, size_after = 0;
    uint8_t *before = written_tally(&c->tally, FEDMRN_CODING_RAW, &size);
    *number ^= 1;
    expect(fedmrn_tally_merge(&c->tally, view) == FEDMRN_AGGREGATE, "tallies that differ are merged");
    *number ^= 1;
    uint8_t *after = written_tally(&c->tally, FEDMRN_CODING_RAW, &size_after);
    expect(size == size_after && memcmp(before, after, size) == 0, "a refused merge changes a tally");
    free(before);
    free(after);
}

/* A tally is added to nothing, written in both codings, and added twice to a sum: what a merge gives. */
static void read_tally(const fedmrn_schema *schema, const uint8_t *bytes, size_t length, int valid)
{
    fedmrn_tally_view view, again;
    fedmrn_status status = fedmrn_tally_read(&view, bytes, length, schema, NULL);
    expect(!valid || status.code == FEDMRN_OK, "a tally that was written is refused");
    expect(status.code == FEDMRN_OK || status.offset <= length, "an error beyond the end");
    if (status.code) return;
    counter c;
    expect(hold_counts(&c, schema, view.weight, view.base_model, view.round), "no memory for a tally that was read");
    expect(fedmrn_tally_merge(&c.tally, &view) == FEDMRN_OK, "a tally is not added to nothing");
    bounds(&c.tally);
    size_t raw_size = 0, coded_size = 0;
    uint8_t *raw = written_tally(&c.tally, FEDMRN_CODING_RAW, &raw_size);
    uint8_t *coded = written_tally(&c.tally, FEDMRN_CODING_RANS14, &coded_size);
    expect(coded_size <= raw_size, "a coding makes a tally longer");
    expect(same_form(&view, raw, coded), "a tally has two forms");
    expect(fedmrn_tally_read(&again, coded, coded_size, schema, &view.seed).code == FEDMRN_OK, "a coded tally is refused");
    refuse_tally(&c, &again, &again.seed);
    refuse_tally(&c, &again, &again.weight);
    refuse_tally(&c, &again, &again.base_model);
    holder one, two;
    expect(hold(&one, schema, view.base_model, view.round), "no sum for a schema whose tally was read");
    expect(hold(&two, schema, view.base_model, view.round), "no second sum");
    fedmrn_code twice = fedmrn_tally_merge(&c.tally, &again);
    expect(fedmrn_sum_add_tally(&one.sum, &view) == FEDMRN_OK, "a tally is not added to a sum");
    means(&one.sum, 1);
    if (fedmrn_sum_add_tally(&one.sum, &again) == FEDMRN_OK && twice == FEDMRN_OK) {
        free(raw);
        raw = written_tally(&c.tally, FEDMRN_CODING_RANS14, &raw_size);
        expect(fedmrn_tally_read(&view, raw, raw_size, schema, NULL).code == FEDMRN_OK, "a merged tally is refused");
        expect(fedmrn_sum_add_tally(&two.sum, &view) == FEDMRN_OK, "a merged tally is not added");
        size_t first = 0, second = 0;
        uint8_t *a = written(&one.sum, &first), *b = written(&two.sum, &second);
        expect(first == second && memcmp(a, b, first) == 0, "a merge has another sum than its parts");
        free(a);
        free(b);
    }
    let_go(&one);
    let_go(&two);
    let_go_counts(&c);
    free(raw);
    free(coded);
}

/* The tally of frames has the same sum as the frames; a grid in place of a mask is refused. */
static void count(const fedmrn_sum *sum, const fedmrn_frame *frame, const fedmrn_demands *demands,
                  const fedmrn_memory *memory)
{
    counter c;
    int grid = 0;
    for (uint32_t k = 0; k < frame->tensor_count; k++)
        grid |= frame->schema->tensors[k].role == FEDMRN_ROLE_MASKED && frame->entries[k].kind == FEDMRN_KIND_GRID;
    if (!hold_counts(&c, frame->schema, 3, 0, 0)) return;
    for (uint64_t i = 0; i < sum->frames; i++) {
        fedmrn_code code = fedmrn_tally_add(&c.tally, frame->bytes, frame->length, demands, memory).code;
        expect(code == (grid ? FEDMRN_AGGREGATE : FEDMRN_OK), "a frame is not counted, or a grid is");
    }
    if (!grid) {
        holder h;
        fedmrn_tally_view view;
        size_t size = 0, tally_size = 0, own_size = 0;
        expect(hold(&h, frame->schema, 0, 0), "no second sum");
        uint8_t *out = written(sum, &size), *tally = written_tally(&c.tally, FEDMRN_CODING_RANS14, &tally_size);
        read_tally(frame->schema, tally, tally_size, 1);
        expect(fedmrn_tally_read(&view, tally, tally_size, frame->schema, NULL).code == FEDMRN_OK, "a tally is refused");
        expect(fedmrn_sum_add_tally(&h.sum, &view) == FEDMRN_OK, "a tally is not added");
        uint8_t *own = written(&h.sum, &own_size);
        expect(own_size == size && memcmp(own, out, size) == 0, "a tally has another sum than its frames");
        free(own);
        free(out);
        free(tally);
        let_go(&h);
    }
    let_go_counts(&c);
}

static void aggregate(const fedmrn_frame *frame, const fedmrn_demands *given, const fedmrn_memory *memory)
{
    holder h;
    if (!hold(&h, frame->schema, 0, 0)) return;
    fedmrn_demands demands = *given;
    for (int i = 0; i < 2; i++)
        expect(fedmrn_sum_add(&h.sum, frame->bytes, frame->length, 3, &demands, memory).code == FEDMRN_OK, "not added");
    means(&h.sum, 0);
    size_t size = 0;
    uint8_t *out = written(&h.sum, &size);
    read_partial(frame->schema, out, size, 1);
    count(&h.sum, frame, &demands, memory);
    free(out);
    let_go(&h);
}

static void read_frame(const fedmrn_schema *schema, const uint8_t *bytes, size_t length)
{
    fedmrn_demands demands = fedmrn_no_demands();
    demands.schema = schema;
    demands.max_elements = MOST_ELEMENTS;
    fedmrn_memory memory = fedmrn_frame_need(bytes, length, &demands);
    memory.tensors = take(memory.tensor_capacity * sizeof *memory.tensors);
    memory.entries = take(memory.entry_capacity * sizeof *memory.entries);
    fedmrn_frame frame;
    fedmrn_status status = fedmrn_frame_read(&frame, bytes, length, &demands, &memory);
    expect(status.code < FEDMRN_MEMORY, "the memory that was asked for is too small");
    expect(status.code == FEDMRN_OK || status.offset <= length, "an error beyond the end");
    if (status.code == FEDMRN_OK) {
        follow(&frame);
        write_again(&frame);
        fedmrn_memory other = memory; /* `frame` points into the first */
        other.tensors = take(memory.tensor_capacity * sizeof *memory.tensors);
        other.entries = take(memory.entry_capacity * sizeof *memory.entries);
        aggregate(&frame, &demands, &other);
        free(other.tensors);
        free(other.entries);
    }
    free(memory.tensors);
    free(memory.entries);
}

/* ---------------------------------------- encoding ---------------------------------------- */

#define ENCODING 15u /* kind, type, coding, scale, seed */
#define MOST_MASK 160u /* bytes of a mask to be encoded: more of the same, and slow */

/* The frame of one entry, in `coding`; NULL if it is refused. */
static uint8_t *encoded(const fedmrn_schema *schema, const fedmrn_entry *entry, uint8_t coding, uint64_t seed, size_t *size)
{
    fedmrn_entry chosen = *entry;
    chosen.coding = coding;
    fedmrn_update update = {schema, &chosen, 1, seed, 0, 0, 0};
    if (fedmrn_frame_size(&update, size)) return NULL;
    uint8_t *out = take(*size);
    expect(fedmrn_frame_write(&update, out, *size) == FEDMRN_OK, "a frame whose size is known is not written");
    return out;
}

static uint8_t *decoded_frame(const fedmrn_schema *schema, const uint8_t *bytes, size_t length)
{
    fedmrn_demands demands = fedmrn_no_demands();
    fedmrn_entry entry;
    fedmrn_memory memory = {NULL, &entry, 0, 1};
    fedmrn_frame frame;
    demands.schema = schema;
    expect(fedmrn_frame_read(&frame, bytes, length, &demands, &memory).code == FEDMRN_OK, "an encoded frame is refused");
    return decoded(&frame, 0);
}

/* Whatever the coding, what is encoded is decoded; only codings 2 and 3 round it. */
static void encode(const uint8_t *data, size_t size)
{
    if (size < ENCODING) return;
    uint8_t raw[27] = {1, 0, 0, 0, 1, 0, 'w', 0, 0, 1}; /* a schema of one tensor of one dimension */
    fedmrn_entry entry = {data + ENCODING, size - ENCODING, fedmrn__u32(data + 3), data[0] % 4, data[1] % 16, 0};
    int mask = entry.kind == FEDMRN_KIND_BINARY || entry.kind == FEDMRN_KIND_SIGNED;
    unsigned dtype = mask ? FEDMRN_FLOAT32 : entry.type;
    size_t unit = entry.kind == FEDMRN_KIND_GRID ? 4 : fedmrn_dtype_size(dtype);
    if (!unit) return;
    if (mask && entry.length > MOST_MASK) entry.length = MOST_MASK;
    uint64_t seed = fedmrn__u64(data + 7), n = mask ? 8 * entry.length - (entry.length ? seed % 8 : 0) : entry.length / unit;
    raw[7] = (uint8_t)mask;
    raw[8] = (uint8_t)dtype;
    fedmrn__put(raw + 10, n, 8);
    fedmrn_tensor tensor;
    fedmrn_schema schema;
    if (fedmrn_schema_read(&schema, raw, 18, &tensor, 1).code) return;
    size_t plain_size = 0, coded_size = 0;
    uint8_t *plain = encoded(&schema, &entry, FEDMRN_CODING_RAW, seed, &plain_size);
    uint8_t *coded = encoded(&schema, &entry, data[2] % 8, seed, &coded_size);
    if (plain && coded) {
        uint8_t *first = decoded_frame(&schema, plain, plain_size), *second = decoded_frame(&schema, coded, coded_size);
        int rounds = data[2] % 8 == FEDMRN_CODING_FLOAT16 || data[2] % 8 == FEDMRN_CODING_BFLOAT16;
        expect(rounds || memcmp(first, second, (size_t)n * fedmrn_dtype_size(dtype)) == 0, "a coding changes elements");
        expect(coded_size <= plain_size, "a coding makes a frame longer");
        free(first);
        free(second);
    }
    free(plain);
    free(coded);
}

/* ---------------------------------------- inputs ---------------------------------------- */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) return 0;
    size_t length = fedmrn__u16(data);
    if (length > size - 2) length = size - 2;
    uint8_t *raw = copy_of(data + 2, length), *bytes = copy_of(data + 2 + length, size - 2 - length);
    size_t need = fedmrn_schema_need(raw, length), left = size - 2 - length;
    fedmrn_tensor *tensors = take(need * sizeof *tensors);
    fedmrn_schema schema;
    fedmrn_status status = fedmrn_schema_read(&schema, raw, length, tensors, need);
    expect(status.code < FEDMRN_MEMORY, "the memory for a schema is too small");
    int known = status.code == FEDMRN_OK && elements_of(&schema) <= MOST_ELEMENTS;
    if (left >= 4 && memcmp(bytes, "FMRS", 4) == 0) {
        if (known) read_partial(&schema, bytes, left, 0);
    } else if (left >= 4 && memcmp(bytes, "FMRT", 4) == 0) {
        if (known) read_tally(&schema, bytes, left, 0);
    } else if (left >= 4 && memcmp(bytes, "FMRN", 4) == 0) {
        read_frame(NULL, bytes, left);
        if (known) read_frame(&schema, bytes, left);
    } else {
        encode(bytes, left);
    }
    free(tensors);
    free(raw);
    free(bytes);
    return 0;
}

/* ---------------------------------------- changes ---------------------------------------- */

static uint32_t state = 1;

static uint32_t below(uint32_t n)
{
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return n ? state % n : 0;
}

/* Change the bytes at `at`, of which there may be more or fewer afterwards; the new size of the whole. */
static size_t change(uint8_t *data, size_t size, size_t max, size_t at, size_t length)
{
    size_t room = max - size, most = length + (room < 64 ? room : 64);
    if (!most) return size;
    uint8_t *part = take(most);
    memcpy(part, data + at, length);
    size_t got = LLVMFuzzerMutate(part, length, most);
    memmove(data + at + got, data + at + length, size - at - length);
    memcpy(data + at, part, got);
    free(part);
    return size - length + got;
}

/* A frame: where its table begins, where its payloads begin, and the offsets of its entries. */
typedef struct {
    size_t entries[64], count, payloads;
    unsigned minor;
} table;

static table table_of(const uint8_t *p, size_t size)
{
    table t;
    size_t at = 48;
    memset(&t, 0, sizeof t);
    if (p[6] & 1 && size >= 56) {
        uint32_t length = fedmrn__u32(p + 48);
        if (length > size - 56) return t;
        at = 52 + length;
    }
    uint32_t count = fedmrn__u32(p + 28);
    while (t.count < count && t.count < 64 && at + 16 <= size) {
        unsigned needed = p[at] == 3 ? 3 : p[at + 2] == 4 ? 2 : p[at + 2] == 5 ? 3 : p[at + 2] != 0;
        if (needed > t.minor) t.minor = needed;
        t.entries[t.count++] = at;
        at += p[at] >= 1 && p[at] <= 3 ? 16 : 12;
    }
    t.payloads = at < size ? at : size;
    return t;
}

/* The tensors of a tally: where each begins. They are taken for masked ones if their first bytes can be those of one, as
 * the mutator does not know the schema; else for dense ones without rows. */
static table tensors_of(const uint8_t *p, size_t size)
{
    table t;
    size_t at = FEDMRN__TALLY_HEADER;
    memset(&t, 0, sizeof t);
    while (t.count < 64 && at + 16 + FEDMRN__CHECKSUM <= size) {
        uint64_t length = fedmrn__u64(p + at + 8);
        t.entries[t.count++] = at;
        if (p[at] < 1 || p[at] > 2 || length > size - at - 16) at += 4;
        else at += 16 + (size_t)length;
    }
    return t;
}

/* Make digest, minor version and checksum right. */
static void repair(uint8_t *data, size_t size, size_t schema_length)
{
    uint8_t *p = data + 2 + schema_length;
    size_t left = size - 2 - schema_length;
    if (left < 52) return;
    int is_frame = memcmp(p, "FMRN", 4) == 0;
    if (below(16)) {
        const uint8_t *raw = data + 2;
        size_t length = schema_length;
        if (is_frame && p[6] & 1 && left >= 56 && fedmrn__u32(p + 48) <= left - 56) {
            raw = p + 52;
            length = fedmrn__u32(p + 48);
        }
        fedmrn__sha256 sha = fedmrn__sha256_begin();
        fedmrn__sha256_add(&sha, raw, length);
        fedmrn__sha256_end(&sha, p + 32);
    }
    if (is_frame && below(16)) p[5] = (uint8_t)table_of(p, left).minor;
    if (below(32)) fedmrn__put(p + left - 4, fedmrn__crc32(p, left - 4), 4);
}

static size_t change_payload(uint8_t *data, size_t size, size_t max, uint8_t *p, size_t left)
{
    table t = table_of(p, left);
    size_t at = t.payloads, k = below((uint32_t)t.count), i;
    if (!t.count || left < 56) return size;
    for (i = 0; i <= k; i++) {
        uint64_t length = fedmrn__u64(p + t.entries[i] + 4);
        if (at > left - 4 || length > left - 4 - at) return size;
        if (i == k) {
            size_t new_size = change(data, size, max, (size_t)(p - data) + at, (size_t)length);
            fedmrn__put(p + t.entries[k] + 4, length + new_size - size, 8);
            return new_size;
        }
        at += (size_t)length;
    }
    return size;
}

/* A byte of a tensor's first 16, or its payload, with a right length. */
static size_t change_tally(uint8_t *data, size_t size, size_t max, uint8_t *p, size_t left)
{
    table t = tensors_of(p, left);
    if (!t.count) return size;
    size_t at = t.entries[below((uint32_t)t.count)];
    uint64_t length = fedmrn__u64(p + at + 8);
    if (below(2) || length > left - at - 16 - FEDMRN__CHECKSUM) {
        p[at + below(16)] = (uint8_t)(below(4) ? below(6) : below(256));
        return size;
    }
    size_t begin = (size_t)(p - data) + at + 16, rest = below(16), new_size;
    if (!below(8) && rest < length) { /* much shorter */
        new_size = size - (size_t)length + rest;
        memmove(data + begin + rest, data + begin + length, size - begin - (size_t)length);
    } else {
        new_size = change(data, size, below(4) ? size : max, begin, (size_t)length);
    }
    fedmrn__put(p + at + 8, length + new_size - size, 8);
    return new_size;
}

static size_t change_message(uint8_t *data, size_t size, size_t max, size_t schema_length)
{
    uint8_t *p = data + 2 + schema_length;
    size_t left = size - 2 - schema_length;
    int is_frame = left >= 56 && memcmp(p, "FMRN", 4) == 0;
    table t;
    if (left >= 64 && memcmp(p, "FMRT", 4) == 0 && below(3)) return change_tally(data, size, max, p, left);
    switch (below(is_frame ? 6 : 2)) {
    case 0: return change(data, size, max, 2 + schema_length, left);
    case 1: /* a byte of the header */
        if (left > 4) p[4 + below((uint32_t)(left < 60 ? left - 4 : 56))] = (uint8_t)(below(2) ? below(6) : below(256));
        return size;
    case 2: /* a byte of the table */
        t = table_of(p, left);
        if (t.count) p[t.entries[below((uint32_t)t.count)] + below(16)] = (uint8_t)(below(4) ? below(6) : below(256));
        return size;
    default: return change_payload(data, size, max, p, left);
    }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
    state = seed * 2654435761u | 1u;
    for (int i = 0; i < 4; i++) below(2);
    if (size < 2) return LLVMFuzzerMutate(data, size, max);
    size_t schema_length = fedmrn__u16(data);
    if (schema_length > size - 2) schema_length = size - 2;
    if (!below(24)) return LLVMFuzzerMutate(data, size, max);
    if (!below(6) && schema_length) { /* of the same length, as its length stands before it */
        size_t new_size = change(data, size, size, 2, schema_length);
        schema_length = schema_length + new_size - size;
        fedmrn__put(data, schema_length, 2);
        size = new_size;
    } else {
        size = change_message(data, size, max, schema_length);
    }
    repair(data, size, schema_length);
    return size;
}

#ifdef ALONE

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max)
{
    size_t at = size ? below((uint32_t)size) : 0;
    switch (below(4)) {
    case 0:
        if (size < max) {
            memmove(data + at + 1, data + at, size - at);
            data[at] = (uint8_t)below(256);
            return size + 1;
        }
        break;
    case 1:
        if (size > 1) {
            memmove(data + at, data + at + 1, size - at - 1);
            return size - 1;
        }
        break;
    default: break;
    }
    if (size) data[at] = (uint8_t)(below(2) ? below(256) : data[at] ^ 1u << below(8));
    return size;
}

int main(int argc, char **argv)
{
    static uint8_t data[1 << 16];
    if (argc < 4) {
        fprintf(stderr, "fuzz: expected COUNT SEED FILE...\n");
        return 2;
    }
    unsigned count = (unsigned)atoi(argv[1]), seed = (unsigned)atoi(argv[2]);
    for (unsigned i = 0; i < count; i++) {
        FILE *file = fopen(argv[3 + i % (unsigned)(argc - 3)], "rb");
        if (!file) return 2;
        size_t size = fread(data, 1, sizeof data / 2, file);
        fclose(file);
        if (i >= (unsigned)(argc - 3)) /* after each file as it is */
            for (unsigned k = 0; k <= i % 3; k++) size = LLVMFuzzerCustomMutator(data, size, sizeof data, seed + 4 * i + k);
        LLVMFuzzerTestOneInput(data, size);
    }
    printf("%u\n", count);
    return 0;
}

#endif
