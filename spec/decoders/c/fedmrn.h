/* fedmrn.h - frames, noise, exact aggregation and tallies of the fedmrn format 1.4 (FORMAT.md), in C99.
 *
 * In one source file:    #define FEDMRN_IMPLEMENTATION
 *                        #include "fedmrn.h"            (it includes fedmrn_table.h, the table of 3.4)
 * elsewhere:             #include "fedmrn.h"
 *
 * Compile the implementation with     -std=c99 -ffp-contract=off
 * on s390x and other machines where   FLT_EVAL_METHOD is 1 by default, also   -fexcess-precision=fast
 * on 32-bit x86 also                  -msse2 -mfpmath=sse
 * and never with                      -ffast-math or any part of it
 * The bits of the noise depend on these flags [N-01]. The preprocessor checks below what it can detect, and
 * fedmrn_arithmetic_is_right() checks the running program (flush to zero, for example, is a processor mode).
 *
 * Nothing is allocated: the functions named ..._need and ..._size return how much memory the functions named
 * ..._read, ..._init and ..._write need. A frame or schema that was read points into its bytes, which must stay
 * unchanged in memory. Bytes are loaded and stored one by one, so any byte order and alignment works. All
 * functions may be called from many threads; a call changes only its outputs, a fedmrn_sum or a fedmrn_tally.
 *
 * Section numbers, the numbers in brackets and quoted words are those of FORMAT.md.
 */
#ifndef FEDMRN_H
#define FEDMRN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Errors (7, 8) ---- */

#define FEDMRN_CODES(X)                                                                                       \
    X(OK, "ok")                                                                                               \
    X(TRUNCATED, "truncated") X(MAGIC, "magic") X(VERSION, "version") X(RESERVED, "reserved")                 \
    X(LIMIT, "limit") X(SCHEMA_LENGTH, "schema_length") X(SCHEMA_NAME, "schema_name")                         \
    X(UNKNOWN_ROLE, "unknown_role") X(UNKNOWN_DTYPE, "unknown_dtype") X(MASKED_DTYPE, "masked_dtype")         \
    X(SCHEMA_SHAPE, "schema_shape") X(SCHEMA_DIGEST, "schema_digest") X(NO_SCHEMA, "no_schema")               \
    X(SCHEMA_MISMATCH, "schema_mismatch") X(TENSOR_COUNT, "tensor_count") X(ROUND, "round")                   \
    X(BASE_MODEL, "base_model") X(SEED, "seed") X(UNKNOWN_KIND, "unknown_kind")                               \
    X(KIND_MISMATCH, "kind_mismatch") X(DTYPE_MISMATCH, "dtype_mismatch")                                     \
    X(UNKNOWN_DISTRIBUTION, "unknown_distribution") X(UNKNOWN_CODING, "unknown_coding")                       \
    X(PAYLOAD_LENGTH, "payload_length") X(SCALE, "scale") X(MINOR, "minor") X(TRAILING, "trailing")           \
    X(CHECKSUM, "checksum") X(PADDING, "padding") X(NON_FINITE, "non_finite") X(BOOL, "bool")                 \
    X(CODING, "coding") X(GRID, "grid")                                                                       \
    X(AGGREGATE, "aggregate") X(WEIGHT, "weight") X(FRAMES, "frames") X(ROWS, "rows") X(SUMS, "sums")         \
    /* not part of the format: the caller's memory is too small; an argument is out of range */               \
    X(MEMORY, "memory") X(ARGUMENT, "argument")

typedef enum {
#define FEDMRN_X(name, text) FEDMRN_##name,
    FEDMRN_CODES(FEDMRN_X)
#undef FEDMRN_X
    FEDMRN_CODE_COUNT
} fedmrn_code;

typedef struct {
    fedmrn_code code; /* 0: no error */
    uint64_t offset;  /* of the field at fault, from the first byte of what was read; for sampling, of its element */
} fedmrn_status;

const char *fedmrn_code_text(fedmrn_code code); /* "truncated", ... */

/* ---- Codes of the format (3.1, 4.2, 5.2, 5.3, 6.4, 6.8 to 6.14) ---- */

enum { FEDMRN_UNIFORM = 1, FEDMRN_GAUSSIAN, FEDMRN_BERNOULLI };
enum { FEDMRN_KIND_DENSE, FEDMRN_KIND_BINARY, FEDMRN_KIND_SIGNED, FEDMRN_KIND_GRID };
enum { FEDMRN_ROLE_DENSE, FEDMRN_ROLE_MASKED };
enum {
    FEDMRN_CODING_RAW, FEDMRN_CODING_RANS, FEDMRN_CODING_FLOAT16, FEDMRN_CODING_BFLOAT16, FEDMRN_CODING_RANS12,
    FEDMRN_CODING_RANS14
};
enum {
    FEDMRN_FLOAT32 = 1, FEDMRN_FLOAT64, FEDMRN_FLOAT16, FEDMRN_BFLOAT16, FEDMRN_INT8, FEDMRN_INT16, FEDMRN_INT32,
    FEDMRN_INT64, FEDMRN_UINT8, FEDMRN_UINT16, FEDMRN_UINT32, FEDMRN_UINT64, FEDMRN_BOOL8
};

/* ---- 1 Conventions ---- */

float fedmrn_float(uint32_t bits); /* the float of these bits */
uint32_t fedmrn_bits(float value); /* the bits of this float */
int fedmrn_arithmetic_is_right(void); /* [N-01], as far as a program can check it at run time */

/* ---- 2 Random words ---- */

/* The block `block` = words 4 block .. 4 block + 3 of (seed, stream). */
void fedmrn_block(uint64_t seed, uint64_t stream, uint64_t block, uint32_t out[4]);

/* `count` words from word j on, j = 4 block + lane (j may be as large as 2^66 - 1). */
void fedmrn_words(uint64_t seed, uint64_t stream, uint64_t block, unsigned lane, size_t count, uint32_t *out);

/* ---- 3 Noise ---- */

/* The draw of a uniform or Gaussian word. */
int32_t fedmrn_draw_uniform(uint32_t word);
int32_t fedmrn_draw_gaussian(uint32_t word);

/* [N-03]: `unknown_distribution`, `scale` or OK. */
fedmrn_code fedmrn_check_scale(unsigned distribution, uint32_t scale_bits);

/* noise(start) .. noise(start + count - 1), floats of this machine. */
fedmrn_code fedmrn_noise(unsigned distribution, uint32_t scale_bits, uint64_t seed, uint64_t stream, uint64_t start,
                         size_t count, float *out);

/* ---- 4 Masks ---- */

/* 4.3: the bits of elements start .. start + count - 1, packed from the first byte of `mask` on. `start` is a
 * multiple of 8; `draws` are the r, below 2^24. `non_finite` if an element of the update is. */
fedmrn_status fedmrn_sample(unsigned kind, unsigned distribution, uint32_t scale_bits, uint64_t seed, uint64_t stream,
                            uint64_t start, size_t count, const float *update, const uint32_t *draws, uint8_t *mask);

/* ---- 5 Schema ---- */

typedef struct {
    const uint8_t *name;  /* not ended by a zero byte */
    const uint8_t *shape; /* 8 rank bytes, see fedmrn_dimension */
    uint64_t elements;
    uint32_t order; /* used by the reader while it looks for equal names */
    uint16_t name_length;
    uint8_t role, dtype, rank;
} fedmrn_tensor;

typedef struct {
    const uint8_t *bytes;
    size_t length;
    const fedmrn_tensor *tensors;
    uint32_t count;
    uint8_t digest[16];
} fedmrn_schema;

/* How many fedmrn_tensor are needed to read these bytes; at most one for every 6 bytes, whatever they hold. */
size_t fedmrn_schema_need(const uint8_t *bytes, size_t length);
fedmrn_status fedmrn_schema_read(fedmrn_schema *schema, const uint8_t *bytes, size_t length, fedmrn_tensor *tensors,
                                 size_t capacity);
uint64_t fedmrn_dimension(const fedmrn_tensor *tensor, unsigned axis);
unsigned fedmrn_dtype_size(unsigned dtype); /* bytes of an element, 0 for an unknown dtype */

/* ---- 6 Frame, 7 Checks ---- */

typedef struct {
    const fedmrn_schema *schema; /* or NULL: the one that the frame embeds */
    int wants_round, wants_base_model, wants_seed;
    uint64_t round, base_model, seed;
    uint64_t max_tensors, max_schema_bytes, max_elements;
} fedmrn_demands;

typedef struct {
    const uint8_t *payload;
    uint64_t length;
    uint32_t scale_bits; /* mask: scale; grid: step */
    uint8_t kind;
    uint8_t type;   /* dense, grid: dtype; mask: distribution */
    uint8_t coding; /* of a frame that was read: that of its payload; of one to be written: the chosen coding */
} fedmrn_entry;

/* The caller's arrays for a frame; fedmrn_frame_need gives the two capacities. */
typedef struct {
    fedmrn_tensor *tensors;
    fedmrn_entry *entries;
    size_t tensor_capacity, entry_capacity;
} fedmrn_memory;

/* Not to be copied: `schema` may point into it. */
typedef struct {
    const uint8_t *bytes;
    size_t length;
    const fedmrn_schema *schema; /* the caller's, or the embedded one */
    const fedmrn_entry *entries; /* one a tensor of the schema */
    uint64_t seed, base_model;
    uint32_t round, tensor_count;
    uint16_t flags;
    uint8_t minor;
    fedmrn_schema embedded;
} fedmrn_frame;

fedmrn_demands fedmrn_no_demands(void); /* no schema, no expected values, the limits of 9.2 */

/* The memory is bounded by the frame's bytes and the caller's schema (7.2); 0 and 0 if the frame is refused earlier. */
fedmrn_memory fedmrn_frame_need(const uint8_t *bytes, size_t length, const fedmrn_demands *demands);

/* All the checks of section 7. */
fedmrn_status fedmrn_frame_read(fedmrn_frame *frame, const uint8_t *bytes, size_t length,
                                const fedmrn_demands *demands, const fedmrn_memory *memory);

/* Elements start .. start + count - 1 of a tensor, in its dtype and in this machine's byte order. A payload in coding
 * 1, 4 or 5 is decoded from the beginning of the block that contains `start`: large ranges that begin at multiples of
 * FEDMRN_BLOCK decode nothing twice. */
#define FEDMRN_BLOCK 65536u
fedmrn_code fedmrn_frame_decode(const fedmrn_frame *frame, uint32_t tensor, uint64_t start, size_t count, void *out);

/* What an encoder writes. Payloads are those of coding 0, whatever coding is chosen for an entry: packed masks,
 * little-endian elements, the integers of a grid as little-endian i32. For codings 2 and 3 elements are rounded, to
 * nearest, ties to even; a mask or grid that its coding would not make shorter is written raw [E-03] [E-04]. */
typedef struct {
    const fedmrn_schema *schema;
    const fedmrn_entry *entries;
    size_t entry_count;
    uint64_t seed, base_model;
    uint32_t round;
    int embed_schema;
} fedmrn_update;

/* Checks the update [E-01] [E-02] and gives the length of its frame. Errors are the decoder's codes. */
fedmrn_code fedmrn_frame_size(const fedmrn_update *update, size_t *size);
fedmrn_code fedmrn_frame_write(const fedmrn_update *update, uint8_t *out, size_t capacity);

/* ---- 8 Aggregation ---- */

typedef struct {
    int64_t *cells;      /* masked: n sums; dense: the limbs, n of limb 0, n of limb 1, ... */
    uint32_t scale_bits; /* masked: scale, or step of a grid */
    uint8_t distribution; /* masked: 3.1, or 4 for a grid */
} fedmrn_slot;

typedef struct {
    const fedmrn_schema *schema;
    fedmrn_slot *slots;
    uint64_t weight, frames, base_model;
    uint32_t round;
} fedmrn_sum;

/* A partial sum that has passed its checks. */
typedef struct {
    const uint8_t *bytes;
    size_t length;
    const fedmrn_schema *schema;
    uint64_t weight, frames, base_model;
    uint32_t round;
} fedmrn_partial;

/* How many slots and cells a sum takes: a cell an element of a masked tensor, up to 88 (float64) of a dense one. */
fedmrn_code fedmrn_sum_need(const fedmrn_schema *schema, size_t *slots, size_t *cells);
void fedmrn_sum_init(fedmrn_sum *sum, const fedmrn_schema *schema, uint64_t base_model, uint32_t round,
                     fedmrn_slot *slots, int64_t *cells); /* base_model, round 0: no expected value */

/* Adds a frame, or leaves the sum as it is. Of `demands` only the seed and the limits are used; it may be NULL. The
 * memory is that of fedmrn_frame_need for the sum's schema: entries for its tensors, and tensors if one is embedded. */
fedmrn_status fedmrn_sum_add(fedmrn_sum *sum, const uint8_t *bytes, size_t length, uint64_t weight,
                             const fedmrn_demands *demands, const fedmrn_memory *memory);

/* The mean of elements start .. start + count - 1, in their dtype and in this machine's byte order. */
fedmrn_code fedmrn_sum_mean(const fedmrn_sum *sum, uint32_t tensor, uint64_t start, size_t count, void *out);

/* 8.5: a sum to bytes, bytes to a partial sum, a partial sum added to a sum. */
fedmrn_code fedmrn_sum_size(const fedmrn_sum *sum, size_t *size);
fedmrn_code fedmrn_sum_write(const fedmrn_sum *sum, uint8_t *out, size_t capacity);
fedmrn_status fedmrn_partial_read(fedmrn_partial *partial, const uint8_t *bytes, size_t length,
                                  const fedmrn_schema *schema);
fedmrn_code fedmrn_sum_merge(fedmrn_sum *sum, const fedmrn_partial *partial);

/* ---- 8.6 Tallies ---- */

typedef struct {
    uint32_t *counts;    /* masked: for each element, the number of frames whose bit is set */
    int64_t *limbs;      /* dense: n of limb 0, n of limb 1, ... */
    uint32_t scale_bits; /* masked */
    uint8_t kind, distribution; /* masked */
} fedmrn_tally_slot;

/* The frames of one seed. Before the first frame or merge, `seed` and the kinds and noise of the slots are not known. */
typedef struct {
    const fedmrn_schema *schema;
    fedmrn_tally_slot *slots;
    uint64_t seed, weight, base_model;
    uint32_t frames, round;
    uint64_t frame_base_model; /* those of the frames that were added here, if `added` is not 0 */
    uint32_t frame_round;
    int added;
} fedmrn_tally;

/* The bytes of a tally that have passed their checks. */
typedef struct {
    const uint8_t *bytes;
    size_t length;
    const fedmrn_schema *schema;
    uint64_t seed, weight, base_model;
    uint32_t frames, round;
} fedmrn_tally_view;

/* How many slots, counts (one an element of a masked tensor) and limbs (up to 88 an element of a dense one) a tally
 * takes. */
fedmrn_code fedmrn_tally_need(const fedmrn_schema *schema, size_t *slots, size_t *counts, size_t *limbs);

/* `weight` is that of each frame; base_model, round 0: no expected value. */
void fedmrn_tally_init(fedmrn_tally *tally, const fedmrn_schema *schema, uint64_t weight, uint64_t base_model,
                       uint32_t round, fedmrn_tally_slot *slots, uint32_t *counts, int64_t *limbs);

/* Adds a frame [A-08], or leaves the tally as it is. `demands` and `memory` are those of fedmrn_sum_add. */
fedmrn_status fedmrn_tally_add(fedmrn_tally *tally, const uint8_t *bytes, size_t length,
                               const fedmrn_demands *demands, const fedmrn_memory *memory);

/* A tally to bytes. `coding` is FEDMRN_CODING_RAW, or FEDMRN_CODING_RANS14 for each masked tensor that it makes shorter
 * [E-05]; fedmrn_tally_size codes such a tensor once, fedmrn_tally_write three times. */
fedmrn_code fedmrn_tally_size(const fedmrn_tally *tally, unsigned coding, size_t *size);
fedmrn_code fedmrn_tally_write(const fedmrn_tally *tally, unsigned coding, uint8_t *out, size_t capacity);

/* Bytes to a tally; `seed` is the expected seed, or NULL. The bytes must stay unchanged as long as the view is used. */
fedmrn_status fedmrn_tally_read(fedmrn_tally_view *view, const uint8_t *bytes, size_t length,
                                const fedmrn_schema *schema, const uint64_t *seed);

/* Adds the frames of a view to a tally [A-09] or to a sum [A-10], or leaves it as it is. */
fedmrn_code fedmrn_tally_merge(fedmrn_tally *tally, const fedmrn_tally_view *view);
fedmrn_code fedmrn_sum_add_tally(fedmrn_sum *sum, const fedmrn_tally_view *view);

/* ---- 1.6, 1.7 Models ---- */

/* 1.6: model[i] becomes base + update, for `count` elements of a dtype, in this machine's byte order. `model` holds the
 * base values; `update` is not changed. `unknown_dtype` or OK. */
fedmrn_code fedmrn_apply(unsigned dtype, size_t count, const void *update, void *model);

/* 1.7: the id of a model that has the schema's tensors. arrays[k] holds the elements of tensor k in this machine's byte
 * order; it is not read if the tensor is empty. dtypes[k] is its dtype in the model; NULL: those of the schema.
 * `unknown_dtype` or OK. */
fedmrn_code fedmrn_model_id(const fedmrn_schema *schema, const uint8_t *dtypes, const void *const *arrays,
                            uint64_t *id);

#ifdef __cplusplus
}
#endif

#endif /* FEDMRN_H */

/* ======================================== implementation ======================================== */

#ifdef FEDMRN_IMPLEMENTATION

#include <string.h>

#include "fedmrn_table.h"

/* [N-01] Under FLT_EVAL_METHOD 1 (f32 operations in f64) the results are still right: the result of every operation
 * is converted to its type at once, and for a single f32 operation, rounding to 53 bits first does not change it.
 * Under 2 or -1 (x87) it would. No product is added to another value, so there is nothing to contract. */
#if defined(__FAST_MATH__) || defined(_M_FP_FAST) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__) || \
    defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) || defined(__NO_SIGNED_ZEROS__)
#error "fedmrn.h: compile without -ffast-math and its parts"
#endif
#if defined(__FLT_EVAL_METHOD__) && __FLT_EVAL_METHOD__ != 0 && __FLT_EVAL_METHOD__ != 1
#error "fedmrn.h: floating point has excess precision; on x86 compile with -msse2 -mfpmath=sse"
#endif

typedef char fedmrn__float_is_binary32[sizeof(float) == 4 && sizeof(double) == 8 ? 1 : -1];

#define FEDMRN__CHUNK 256u /* elements at a time; a multiple of 32 that divides FEDMRN_BLOCK */
#define FEDMRN__MAX_ELEMENTS ((uint64_t)1 << 48)
#define FEDMRN__MAX_WEIGHT (((uint64_t)1 << 39) - 1)
#define FEDMRN__DIGIT 0xFFFFFFu /* the largest digit in base 2^24 */
#define FEDMRN__HEADER 48u
#define FEDMRN__MINOR 3u /* spec 6.2: the highest minor version */
#define FEDMRN__GRID 4u /* spec 8.1 [A-02]: the code that kind 3 has among the distributions of a sum */
#define FEDMRN__PARTIAL_HEADER 56u
#define FEDMRN__TALLY_HEADER 60u
#define FEDMRN__MOST_FRAMES 0xFFFFFFu /* spec 8.6: of a tally */
#define FEDMRN__CHECKSUM 4u

/* spec 7.1 */
const char *fedmrn_code_text(fedmrn_code code)
{
    static const char *const texts[] = {
#define FEDMRN_X(name, text) text,
        FEDMRN_CODES(FEDMRN_X)
#undef FEDMRN_X
    };
    return (unsigned)code < FEDMRN_CODE_COUNT ? texts[code] : "?";
}

static fedmrn_status fedmrn__fail(fedmrn_code code, uint64_t offset)
{
    fedmrn_status status;
    status.code = code;
    status.offset = offset;
    return status;
}

static fedmrn_status fedmrn__ok(void) { return fedmrn__fail(FEDMRN_OK, 0); }

/* ---------------------------------------- 1 Conventions ---------------------------------------- */

/* spec 1.2 */
static uint16_t fedmrn__u16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }

static uint32_t fedmrn__u32(const uint8_t *p) { return (uint32_t)fedmrn__u16(p) | (uint32_t)fedmrn__u16(p + 2) << 16; }

static uint64_t fedmrn__u64(const uint8_t *p) { return (uint64_t)fedmrn__u32(p) | (uint64_t)fedmrn__u32(p + 4) << 32; }

/* Two's complement, without an implementation-defined conversion. */
static int64_t fedmrn__signed(uint64_t bits)
{
    return bits >> 63 ? -(int64_t)(~bits) - 1 : (int64_t)bits;
}

static int64_t fedmrn__i64(const uint8_t *p) { return fedmrn__signed(fedmrn__u64(p)); }

static uint8_t *fedmrn__put(uint8_t *p, uint64_t value, unsigned size)
{
    unsigned k;
    for (k = 0; k < size; k++) p[k] = (uint8_t)(value >> (8 * k));
    return p + size;
}

static uint8_t *fedmrn__put_bytes(uint8_t *p, const uint8_t *bytes, size_t size)
{
    if (size) memcpy(p, bytes, size);
    return p + size;
}

/* An element in this machine's byte order. */
static uint8_t *fedmrn__put_native(uint8_t *p, uint64_t value, unsigned size)
{
    uint8_t v8 = (uint8_t)value;
    uint16_t v16 = (uint16_t)value;
    uint32_t v32 = (uint32_t)value;
    if (size == 1) memcpy(p, &v8, 1);
    if (size == 2) memcpy(p, &v16, 2);
    if (size == 4) memcpy(p, &v32, 4);
    if (size == 8) memcpy(p, &value, 8);
    return p + size;
}

static uint64_t fedmrn__load(const uint8_t *p, unsigned size)
{
    if (size == 1) return p[0];
    if (size == 2) return fedmrn__u16(p);
    return size == 4 ? fedmrn__u32(p) : fedmrn__u64(p);
}

/* spec 1.3 */
static unsigned fedmrn__bit_length(uint32_t x)
{
#if defined(__GNUC__)
    return x ? 32u - (unsigned)__builtin_clz(x) : 0;
#else
    unsigned n = 0;
    for (; x; x >>= 1) n++;
    return n;
#endif
}

/* spec 1.4 */
float fedmrn_float(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

uint32_t fedmrn_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* spec 1.4 [N-01]: subnormal operands and results are kept, f64 sums are rounded once. */
int fedmrn_arithmetic_is_right(void)
{
    volatile float least = 0x1p-126f, subnormal = 0x1p-127f, half = 0.5f;
    volatile float halved = least * half, doubled = subnormal / half;
    volatile double even = 9007199254740994.0, nearly_one = 1.0 - 1.0 / 65536.0, sum = even + nearly_one;
    return fedmrn_bits(halved) == 0x00400000u && fedmrn_bits(doubled) == 0x00800000u && sum == even;
}

/* ---------------------------------------- 2 Random words ---------------------------------------- */

/* spec 2.2, 2.3 [N-02] */
void fedmrn_block(uint64_t seed, uint64_t stream, uint64_t block, uint32_t out[4])
{
    uint32_t c0 = (uint32_t)block, c1 = (uint32_t)(block >> 32);
    uint32_t c2 = (uint32_t)stream, c3 = (uint32_t)(stream >> 32);
    uint32_t ka = (uint32_t)seed, kb = (uint32_t)(seed >> 32);
    int round;
    for (round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0;
        uint64_t p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ ka;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ kb;
        c3 = (uint32_t)p0;
        ka += 0x9E3779B9u;
        kb += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* spec 2.2 */
void fedmrn_words(uint64_t seed, uint64_t stream, uint64_t block, unsigned lane, size_t count, uint32_t *out)
{
    uint32_t four[4];
    while (count) {
        if (lane == 0 && count >= 4) {
            fedmrn_block(seed, stream, block++, out);
            out += 4;
            count -= 4;
        } else {
            fedmrn_block(seed, stream, block++, four);
            for (; lane < 4 && count; count--) *out++ = four[lane++];
            lane = 0;
        }
    }
}

/* ---------------------------------------- 3 Noise ---------------------------------------- */

/* spec 3.1: exact; the step of a grid is its own scale. */
static float fedmrn__step(unsigned distribution, uint32_t scale_bits)
{
    float a = fedmrn_float(scale_bits);
    if (distribution == FEDMRN_UNIFORM) return (float)(a * 0x1p-24f);
    if (distribution == FEDMRN_GAUSSIAN) return (float)(a * 0x1p-21f);
    return a;
}

/* spec 3.2 */
int32_t fedmrn_draw_uniform(uint32_t word) { return 2 * (int32_t)(word >> 8) - 0xFFFFFF; }

/* spec 3.4 */
int32_t fedmrn_draw_gaussian(uint32_t word)
{
    uint32_t x = 2 * (word & 0x7FFFFFFFu) + 1;
    uint32_t j = fedmrn__bit_length(x) - 1;
    uint32_t m = x << (31 - j);
    uint32_t s = (m >> 25) & 63;
    uint32_t f = (m >> 9) & 0xFFFFu;
    uint32_t k = 64 * j + s;
    uint32_t g = fedmrn__gaussian[k] - (((fedmrn__gaussian[k] - fedmrn__gaussian[k + 1]) * f + 0x8000u) >> 16);
    int32_t q = (int32_t)(g ? g : 1);
    return word >> 31 ? -q : q;
}

/* spec 3.3: the draws of `count` <= CHUNK elements. */
static void fedmrn__draws_bernoulli(uint64_t seed, uint64_t stream, uint64_t start, size_t count, int32_t *q)
{
    uint32_t words[FEDMRN__CHUNK / 32 + 1];
    unsigned shift = (unsigned)(start % 32);
    size_t i;
    fedmrn_words(seed, stream, start / 32 / 4, (unsigned)(start / 32 % 4), (shift + count + 31) / 32, words);
    for (i = 0; i < count; i++) {
        size_t bit = shift + i;
        q[i] = (int32_t)(words[bit / 32] >> (bit % 32) & 1) * 2 - 1;
    }
}

/* spec 3.1: the draws of `count` <= CHUNK elements. */
static void fedmrn__draws(unsigned distribution, uint64_t seed, uint64_t stream, uint64_t start, size_t count,
                          int32_t *q)
{
    uint32_t words[FEDMRN__CHUNK];
    size_t i;
    if (distribution == FEDMRN_BERNOULLI) {
        fedmrn__draws_bernoulli(seed, stream, start, count, q);
        return;
    }
    fedmrn_words(seed, stream, start / 4, (unsigned)(start % 4), count, words);
    if (distribution == FEDMRN_UNIFORM)
        for (i = 0; i < count; i++) q[i] = fedmrn_draw_uniform(words[i]);
    else
        for (i = 0; i < count; i++) q[i] = fedmrn_draw_gaussian(words[i]);
}

/* spec 3.1 [N-04]: the noise of `count` <= CHUNK elements. */
static void fedmrn__noise(unsigned distribution, float step, uint64_t seed, uint64_t stream, uint64_t start,
                          size_t count, float *out)
{
    int32_t q[FEDMRN__CHUNK];
    size_t i;
    fedmrn__draws(distribution, seed, stream, start, count, q);
    for (i = 0; i < count; i++) out[i] = (float)((float)q[i] * step);
}

/* spec 3.5 [N-03]: positive floats are ordered like their bits. */
fedmrn_code fedmrn_check_scale(unsigned distribution, uint32_t scale_bits)
{
    static const uint32_t least[] = {0x0C800000u, 0x0B000000u, 0x00800000u};   /* 2^-102, 2^-105, 2^-126 */
    static const uint32_t largest[] = {0x7F7FFFFFu, 0x7E000000u, 0x7F7FFFFFu}; /* largest, 2^125, largest */
    unsigned k = distribution - 1;
    if (distribution < FEDMRN_UNIFORM || distribution > FEDMRN_BERNOULLI) return FEDMRN_UNKNOWN_DISTRIBUTION;
    return scale_bits < least[k] || scale_bits > largest[k] ? FEDMRN_SCALE : FEDMRN_OK;
}

static size_t fedmrn__chunk(size_t left) { return left < FEDMRN__CHUNK ? left : FEDMRN__CHUNK; }

fedmrn_code fedmrn_noise(unsigned distribution, uint32_t scale_bits, uint64_t seed, uint64_t stream, uint64_t start,
                         size_t count, float *out)
{
    fedmrn_code code = fedmrn_check_scale(distribution, scale_bits);
    size_t done, n;
    if (code) return code;
    for (done = 0; done < count; done += n) {
        n = fedmrn__chunk(count - done);
        fedmrn__noise(distribution, fedmrn__step(distribution, scale_bits), seed, stream, start + done, n, out + done);
    }
    return FEDMRN_OK;
}

/* ---------------------------------------- 4 Masks ---------------------------------------- */

/* spec 4.1: at most 2^45 for 2^48 elements. */
static uint64_t fedmrn__mask_bytes(uint64_t elements) { return elements / 8 + (elements % 8 != 0); }

static uint32_t fedmrn__mask_bit(const uint8_t *mask, uint64_t i)
{
    return (uint32_t)(mask[(size_t)(i / 8)] >> (i % 8)) & 1;
}

/* spec 4.1 [M-01] */
static int fedmrn__padding_is_zero(const uint8_t *mask, uint64_t elements)
{
    return elements % 8 == 0 || mask[(size_t)(elements / 8)] >> (elements % 8) == 0;
}

/* spec 4.2 [M-02]: the noise of element i, kept, dropped or negated, as bits. */
static uint32_t fedmrn__masked_bits(unsigned kind, uint32_t bit, float noise)
{
    uint32_t bits = fedmrn_bits(noise);
    return kind == FEDMRN_KIND_BINARY ? bits & (0u - bit) : bits ^ (bit ^ 1) << 31;
}

/* spec 4.3 [M-04]: every step rounded to f32. */
static uint32_t fedmrn__sample_bit(unsigned kind, float u, float noise, uint32_t r)
{
    float p = (float)(u / noise), t;
    if (kind == FEDMRN_KIND_BINARY) {
        t = (float)(p * 0x1p24f);
    } else {
        t = (float)(p + 1.0f);
        t = (float)(t * 0x1p23f);
    }
    return (float)r < t;
}

static fedmrn_status fedmrn__check_sample(size_t count, const float *update, const uint32_t *draws)
{
    size_t i;
    for (i = 0; i < count; i++) {
        if ((fedmrn_bits(update[i]) >> 23 & 0xFF) == 0xFF) return fedmrn__fail(FEDMRN_NON_FINITE, i);
        if (draws[i] >> 24) return fedmrn__fail(FEDMRN_ARGUMENT, i);
    }
    return fedmrn__ok();
}

/* spec 4.3 */
fedmrn_status fedmrn_sample(unsigned kind, unsigned distribution, uint32_t scale_bits, uint64_t seed, uint64_t stream,
                            uint64_t start, size_t count, const float *update, const uint32_t *draws, uint8_t *mask)
{
    float noise[FEDMRN__CHUNK], step;
    fedmrn_code code = fedmrn_check_scale(distribution, scale_bits);
    fedmrn_status status = fedmrn__check_sample(count, update, draws);
    size_t done, n, i;
    if (kind != FEDMRN_KIND_BINARY && kind != FEDMRN_KIND_SIGNED) return fedmrn__fail(FEDMRN_UNKNOWN_KIND, 0);
    if (code) return fedmrn__fail(code, 0);
    if (status.code) return status;
    if (start % 8) return fedmrn__fail(FEDMRN_ARGUMENT, 0);
    step = fedmrn__step(distribution, scale_bits);
    if (count) memset(mask, 0, (size_t)fedmrn__mask_bytes(count));
    for (done = 0; done < count; done += n) {
        n = fedmrn__chunk(count - done);
        fedmrn__noise(distribution, step, seed, stream, start + done, n, noise);
        for (i = 0; i < n; i++) {
            uint32_t bit = fedmrn__sample_bit(kind, update[done + i], noise[i], draws[done + i]);
            mask[(done + i) / 8] |= (uint8_t)(bit << ((done + i) % 8));
        }
    }
    return fedmrn__ok();
}

/* ---------------------------------------- 5 Schema ---------------------------------------- */

/* spec 5.3, 8.4, 8.5 */
typedef struct {
    uint8_t size;      /* bytes of an element */
    uint8_t precision; /* of a float, in bits, the leading one counted; 0 for integers */
    uint8_t negative;  /* there are negative values */
    uint8_t limbs;
} fedmrn__dtype;

static const fedmrn__dtype fedmrn__dtypes[14] = {
    {0, 0, 0, 0},   {4, 24, 1, 12}, {8, 53, 1, 88}, {2, 11, 1, 2}, {2, 8, 1, 11}, /* float32, 64, 16, bfloat16 */
    {1, 0, 1, 1},   {2, 0, 1, 1},   {4, 0, 1, 2},   {8, 0, 1, 3},                 /* int8 to int64 */
    {1, 0, 0, 1},   {2, 0, 0, 1},   {4, 0, 0, 2},   {8, 0, 0, 3},                 /* uint8 to uint64 */
    {1, 0, 0, 1},                                                                 /* bool */
};

static int fedmrn__is_float(unsigned dtype) { return dtype >= FEDMRN_FLOAT32 && dtype <= FEDMRN_BFLOAT16; }

static int fedmrn__dtype_known(unsigned dtype) { return dtype >= FEDMRN_FLOAT32 && dtype <= FEDMRN_BOOL8; }

unsigned fedmrn_dtype_size(unsigned dtype) { return fedmrn__dtype_known(dtype) ? fedmrn__dtypes[dtype].size : 0; }

uint64_t fedmrn_dimension(const fedmrn_tensor *tensor, unsigned axis) { return fedmrn__u64(tensor->shape + 8 * axis); }

/* Bytes that are read from the front: those of `bytes` from `at` up to `end` are not read yet. */
typedef struct {
    const uint8_t *bytes;
    size_t at, end;
} fedmrn__in;

static fedmrn__in fedmrn__from(const uint8_t *bytes, size_t at, size_t end)
{
    fedmrn__in in;
    in.bytes = bytes;
    in.at = at;
    in.end = end;
    return in;
}

static int fedmrn__has(const fedmrn__in *in, uint64_t size) { return in->end - in->at >= size; }

static const uint8_t *fedmrn__take(fedmrn__in *in, size_t size)
{
    const uint8_t *p = in->bytes + in->at;
    in->at += size;
    return p;
}

/* spec 7.3 [S-02]: the bytes of the character at p, or 0 if it is none of RFC 3629. */
static size_t fedmrn__utf8_character(const uint8_t *p, size_t left)
{
    size_t size = p[0] < 0x80 ? 1 : p[0] < 0xC2 ? 0 : p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : p[0] < 0xF5 ? 4 : 0;
    size_t k;
    if (size > left) return 0;
    for (k = 1; k < size; k++)
        if (p[k] >> 6 != 2) return 0;
    if (p[0] == 0xE0 && p[1] < 0xA0) return 0; /* overlong */
    if (p[0] == 0xED && p[1] > 0x9F) return 0; /* surrogates */
    if (p[0] == 0xF0 && p[1] < 0x90) return 0; /* overlong */
    if (p[0] == 0xF4 && p[1] > 0x8F) return 0; /* beyond U+10FFFF */
    return size;
}

static int fedmrn__utf8(const uint8_t *p, size_t length)
{
    size_t at, size;
    for (at = 0; at < length; at += size) {
        size = fedmrn__utf8_character(p + at, length - at);
        if (!size) return 0;
    }
    return 1;
}

/* spec 5.2: names are compared byte for byte. To find equal names, any order is sufficient; here shorter names come
 * first. The indices in `order` are sorted in place, by heap sort, so that no choice of names makes it slow. */
static int fedmrn__compare_names(const fedmrn_tensor *a, const fedmrn_tensor *b)
{
    if (a->name_length != b->name_length) return a->name_length < b->name_length ? -1 : 1;
    return memcmp(a->name, b->name, a->name_length);
}

static int fedmrn__name_before(const fedmrn_tensor *t, uint32_t a, uint32_t b)
{
    int c = fedmrn__compare_names(&t[a], &t[b]);
    return c ? c < 0 : a < b;
}

static void fedmrn__sift(fedmrn_tensor *t, size_t root, size_t count)
{
    uint32_t moved = t[root].order;
    size_t child;
    while ((child = 2 * root + 1) < count) {
        if (child + 1 < count && fedmrn__name_before(t, t[child].order, t[child + 1].order)) child++;
        if (!fedmrn__name_before(t, moved, t[child].order)) break;
        t[root].order = t[child].order;
        root = child;
    }
    t[root].order = moved;
}

static void fedmrn__sort_names(fedmrn_tensor *t, size_t count)
{
    size_t k;
    for (k = 0; k < count; k++) t[k].order = (uint32_t)k;
    for (k = count / 2; k-- > 0;) fedmrn__sift(t, k, count);
    for (k = count; k-- > 1;) {
        uint32_t last = t[0].order;
        t[0].order = t[k].order;
        t[k].order = last;
        fedmrn__sift(t, 0, k);
    }
}

/* spec 7.3 [S-02]: the first tensor with the name of an earlier tensor, or `count`. */
static size_t fedmrn__first_repeated_name(fedmrn_tensor *t, size_t count)
{
    size_t first = count, k;
    fedmrn__sort_names(t, count);
    for (k = 1; k < count; k++)
        if (fedmrn__compare_names(&t[t[k - 1].order], &t[t[k].order]) == 0 && t[k].order < first) first = t[k].order;
    return first;
}

/* spec 5.2, 7.3 [S-01] [S-02] */
static fedmrn_status fedmrn__read_name(fedmrn__in *in, fedmrn_tensor *t)
{
    size_t at = in->at;
    t->name_length = 0;
    if (!fedmrn__has(in, 2)) return fedmrn__fail(FEDMRN_SCHEMA_LENGTH, at);
    t->name_length = fedmrn__u16(fedmrn__take(in, 2));
    if (t->name_length == 0) return fedmrn__fail(FEDMRN_SCHEMA_NAME, at);
    if (!fedmrn__has(in, t->name_length)) return fedmrn__fail(FEDMRN_SCHEMA_LENGTH, at + 2);
    t->name = fedmrn__take(in, t->name_length);
    if (!fedmrn__utf8(t->name, t->name_length)) return fedmrn__fail(FEDMRN_SCHEMA_NAME, at + 2);
    return fedmrn__ok();
}

/* spec 5.2, 7.3 [S-06] */
static fedmrn_status fedmrn__read_shape(fedmrn__in *in, fedmrn_tensor *t)
{
    size_t at = in->at;
    uint64_t product = 1;
    int empty = 0;
    unsigned k;
    if (!fedmrn__has(in, 1)) return fedmrn__fail(FEDMRN_SCHEMA_LENGTH, at);
    t->rank = *fedmrn__take(in, 1);
    if (t->rank > 32) return fedmrn__fail(FEDMRN_SCHEMA_SHAPE, at);
    if (!fedmrn__has(in, 8u * t->rank)) return fedmrn__fail(FEDMRN_SCHEMA_LENGTH, at + 1);
    t->shape = fedmrn__take(in, 8u * t->rank);
    for (k = 0; k < t->rank; k++) {
        uint64_t d = fedmrn_dimension(t, k);
        if (d > FEDMRN__MAX_ELEMENTS / product) return fedmrn__fail(FEDMRN_SCHEMA_SHAPE, at + 1 + 8 * k);
        if (d) product *= d;
        else empty = 1;
    }
    t->elements = empty ? 0 : product;
    return fedmrn__ok();
}

/* spec 5.2, 7.3 [S-01] to [S-06], but for equal names */
static fedmrn_status fedmrn__read_tensor(fedmrn__in *in, fedmrn_tensor *t, int *named)
{
    fedmrn_status status = fedmrn__read_name(in, t);
    if (status.code) return status;
    *named = 1;
    if (!fedmrn__has(in, 1)) return fedmrn__fail(FEDMRN_SCHEMA_LENGTH, in->at);
    t->role = *fedmrn__take(in, 1);
    if (t->role > FEDMRN_ROLE_MASKED) return fedmrn__fail(FEDMRN_UNKNOWN_ROLE, in->at - 1);
    if (!fedmrn__has(in, 1)) return fedmrn__fail(FEDMRN_SCHEMA_LENGTH, in->at);
    t->dtype = *fedmrn__take(in, 1);
    if (!fedmrn__dtype_known(t->dtype)) return fedmrn__fail(FEDMRN_UNKNOWN_DTYPE, in->at - 1);
    if (t->role == FEDMRN_ROLE_MASKED && t->dtype != FEDMRN_FLOAT32)
        return fedmrn__fail(FEDMRN_MASKED_DTYPE, in->at - 1);
    return fedmrn__read_shape(in, t);
}

/* The smallest tensor has 6 bytes, and one more tensor may be truncated. */
size_t fedmrn_schema_need(const uint8_t *bytes, size_t length)
{
    uint64_t count;
    size_t most;
    if (length < 4) return 0;
    count = fedmrn__u32(bytes);
    most = (length - 4) / 6 + 1;
    return count < most ? (size_t)count : most;
}

/* spec 5.4: SHA-256 (FIPS 180-4). */
static uint32_t fedmrn__rotate(uint32_t x, unsigned n) { return x >> n | x << (32 - n); }

static void fedmrn__sha256_block(uint32_t state[8], const uint8_t *p)
{
    static const uint32_t constants[64] = {
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
        0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
        0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
        0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
        0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
        0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
        0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
    uint32_t w[64], h[8];
    int i;
    for (i = 0; i < 16; i++)
        w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 | (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
    for (; i < 64; i++) {
        uint32_t a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + (fedmrn__rotate(a, 7) ^ fedmrn__rotate(a, 18) ^ a >> 3) + w[i - 7] +
               (fedmrn__rotate(b, 17) ^ fedmrn__rotate(b, 19) ^ b >> 10);
    }
    memcpy(h, state, sizeof h);
    for (i = 0; i < 64; i++) {
        uint32_t e = h[4], a = h[0];
        uint32_t t1 = h[7] + (fedmrn__rotate(e, 6) ^ fedmrn__rotate(e, 11) ^ fedmrn__rotate(e, 25)) +
                      ((e & h[5]) ^ (~e & h[6])) + constants[i] + w[i];
        uint32_t t2 = (fedmrn__rotate(a, 2) ^ fedmrn__rotate(a, 13) ^ fedmrn__rotate(a, 22)) +
                      ((a & h[1]) ^ (a & h[2]) ^ (h[1] & h[2]));
        memmove(h + 1, h, 7 * sizeof h[0]);
        h[4] += t1;
        h[0] = t1 + t2;
    }
    for (i = 0; i < 8; i++) state[i] += h[i];
}

/* SHA-256 of bytes that are given piece by piece. */
typedef struct {
    uint32_t state[8];
    uint64_t length; /* of the bytes so far */
    uint8_t block[64]; /* the last length mod 64 of them */
} fedmrn__sha256;

static fedmrn__sha256 fedmrn__sha256_begin(void)
{
    fedmrn__sha256 sha = {{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                           0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}, 0, {0}};
    return sha;
}

static void fedmrn__sha256_add(fedmrn__sha256 *sha, const uint8_t *bytes, size_t length)
{
    while (length) {
        size_t used = (size_t)(sha->length % 64), part = length < 64 - used ? length : 64 - used;
        memcpy(sha->block + used, bytes, part);
        if (used + part == 64) fedmrn__sha256_block(sha->state, sha->block);
        sha->length += part;
        bytes += part;
        length -= part;
    }
}

/* Its first 16 bytes. */
static void fedmrn__sha256_end(fedmrn__sha256 *sha, uint8_t digest[16])
{
    static const uint8_t padding[64] = {0x80};
    uint8_t bits[8];
    unsigned i;
    for (i = 0; i < 8; i++) bits[7 - i] = (uint8_t)(sha->length << 3 >> (8 * i));
    fedmrn__sha256_add(sha, padding, 1 + (size_t)((119 - sha->length % 64) % 64));
    fedmrn__sha256_add(sha, bits, 8);
    for (i = 0; i < 16; i++) digest[i] = (uint8_t)(sha->state[i / 4] >> (24 - 8 * (i % 4)));
}

/* spec 5.4 */
static void fedmrn__digest(const uint8_t *bytes, size_t length, uint8_t digest[16])
{
    fedmrn__sha256 sha = fedmrn__sha256_begin();
    fedmrn__sha256_add(&sha, bytes, length);
    fedmrn__sha256_end(&sha, digest);
}

/* spec 7.3 [S-02]: a repeated name is an earlier fault than `found`, if there is one. The names read so far are those
 * of the tensors before that fault, and that of its own tensor if it was read. */
static fedmrn_status fedmrn__check_names(const uint8_t *bytes, fedmrn_tensor *tensors, size_t named,
                                         fedmrn_status found)
{
    size_t repeated = fedmrn__first_repeated_name(tensors, named);
    return repeated < named ? fedmrn__fail(FEDMRN_SCHEMA_NAME, (uint64_t)(tensors[repeated].name - bytes)) : found;
}

/* The tensors that are read of a schema: what its bytes can hold, and no more than the limit. */
static size_t fedmrn__tensors_need(const uint8_t *bytes, size_t length, uint64_t most)
{
    size_t need = fedmrn_schema_need(bytes, length);
    return need < most ? need : (size_t)most;
}

/* spec 5.1, 7.3 [S-01] to [S-06], [S-09] */
static fedmrn_status fedmrn__read_schema(fedmrn_schema *schema, const uint8_t *bytes, size_t length,
                                         fedmrn_tensor *tensors, size_t capacity, uint64_t most)
{
    fedmrn__in in = fedmrn__from(bytes, 4, length);
    fedmrn_status status = fedmrn__ok();
    size_t k = 0;
    int named = 0;
    if (length < 4) return fedmrn__fail(FEDMRN_SCHEMA_LENGTH, 0);
    if (capacity < fedmrn__tensors_need(bytes, length, most)) return fedmrn__fail(FEDMRN_MEMORY, 0);
    schema->bytes = bytes;
    schema->length = length;
    schema->tensors = tensors;
    schema->count = fedmrn__u32(bytes);
    for (; k < schema->count && !status.code; k += (size_t)named) {
        named = 0;
        status = k < most ? fedmrn__read_tensor(&in, &tensors[k], &named) : fedmrn__fail(FEDMRN_LIMIT, 0);
    }
    status = fedmrn__check_names(bytes, tensors, k, status);
    if (status.code) return status;
    if (in.at != length) return fedmrn__fail(FEDMRN_SCHEMA_LENGTH, in.at);
    fedmrn__digest(bytes, length, schema->digest);
    return fedmrn__ok();
}

/* spec 7.3: no limit applies to a schema of the caller. */
fedmrn_status fedmrn_schema_read(fedmrn_schema *schema, const uint8_t *bytes, size_t length, fedmrn_tensor *tensors,
                                 size_t capacity)
{
    return fedmrn__read_schema(schema, bytes, length, tensors, capacity, UINT64_MAX);
}

/* spec 7.3 [S-07]: the sum can exceed 2^64. */
static int fedmrn__elements_within(const fedmrn_schema *schema, uint64_t limit)
{
    uint32_t k;
    for (k = 0; k < schema->count; k++) {
        if (schema->tensors[k].elements > limit) return 0;
        limit -= schema->tensors[k].elements;
    }
    return 1;
}

/* ---------------------------------------- 6 Frame ---------------------------------------- */

static int fedmrn__is_mask(unsigned kind) { return kind == FEDMRN_KIND_BINARY || kind == FEDMRN_KIND_SIGNED; }

/* spec 6.4: the length of the raw payload; at most 2^51. */
static uint64_t fedmrn__raw_bytes(const fedmrn_tensor *t, unsigned kind)
{
    if (fedmrn__is_mask(kind)) return fedmrn__mask_bytes(t->elements);
    return t->elements * (kind == FEDMRN_KIND_GRID ? 4u : fedmrn__dtypes[t->dtype].size);
}

/* spec 6.8: B; at most 2^32. */
static uint64_t fedmrn__blocks(uint64_t elements) { return elements / FEDMRN_BLOCK + (elements % FEDMRN_BLOCK != 0); }

/* spec 6.9: whether a coding rounds dense elements to 16 bits. */
static int fedmrn__is_half(unsigned coding)
{
    return coding == FEDMRN_CODING_FLOAT16 || coding == FEDMRN_CODING_BFLOAT16;
}

/* spec 6.8, 6.11, 6.14: whether a coding entropy-codes masks or grids. */
static int fedmrn__is_coder(unsigned coding) { return coding != FEDMRN_CODING_RAW && !fedmrn__is_half(coding); }

/* spec 6.4: the least length of an entropy-coded payload of one element or more. */
static uint64_t fedmrn__least_coded(unsigned coding, uint64_t elements)
{
    uint64_t blocks = fedmrn__blocks(elements);
    if (coding == FEDMRN_CODING_RANS) return 16 + 34 * blocks;
    return coding == FEDMRN_CODING_RANS12 ? 6 * blocks - 1 : 8 * blocks - 3;
}

/* spec 6.2: the first minor version that has the kind and the coding. */
static unsigned fedmrn__minor_of(unsigned kind, unsigned coding)
{
    if (kind == FEDMRN_KIND_GRID) return 3;
    return coding == FEDMRN_CODING_RAW ? 0 : coding == FEDMRN_CODING_RANS12 ? 2 : 1;
}

/* spec 6.4 [F-21] */
static int fedmrn__coding_allowed(const fedmrn_tensor *t, unsigned kind, unsigned coding, unsigned minor)
{
    if (coding == FEDMRN_CODING_RAW) return 1;
    if (kind == FEDMRN_KIND_GRID) return coding == FEDMRN_CODING_RANS14;
    if (fedmrn__minor_of(kind, coding) > minor) return 0;
    if (kind == FEDMRN_KIND_DENSE) return fedmrn__is_half(coding) && t->dtype == FEDMRN_FLOAT32;
    return coding == FEDMRN_CODING_RANS || coding == FEDMRN_CODING_RANS12;
}

/* spec 6.4 [F-23] */
static int fedmrn__length_allowed(const fedmrn_tensor *t, unsigned kind, unsigned coding, uint64_t length)
{
    uint64_t raw = fedmrn__raw_bytes(t, kind);
    if (coding == FEDMRN_CODING_RAW) return length == raw;
    if (fedmrn__is_coder(coding)) return length < raw && length >= fedmrn__least_coded(coding, t->elements);
    return length == raw / 2;
}

/* spec 6.12: the largest magnitude of z in a float dtype. */
static int32_t fedmrn__largest_integer(unsigned dtype)
{
    unsigned bits = fedmrn__dtypes[dtype].precision;
    return ((int32_t)1 << (bits < 24 ? bits : 24)) - 1;
}

/* spec 6.12, 7.3 [F-24]: the step is a power of two; its exponent, biased by 127, is within the dtype's bounds. */
static fedmrn_code fedmrn__check_step(unsigned dtype, uint32_t bits)
{
    static const uint8_t least[] = {0, 1, 1, 103, 1}, largest[] = {0, 231, 231, 132, 247};
    uint32_t exponent = bits >> 23; /* with the sign, which makes it too large */
    if (bits & 0x7FFFFFu) return FEDMRN_SCALE;
    return exponent < least[dtype] || exponent > largest[dtype] ? FEDMRN_SCALE : FEDMRN_OK;
}

/* spec 6.12: the bits of f(z) * step in a float dtype, where both are within their bounds. */
static uint64_t fedmrn__grid_value(unsigned dtype, uint32_t step_bits, int32_t z)
{
    static const uint16_t bias[] = {0, 127, 1023, 15, 127};
    const fedmrn__dtype *d = &fedmrn__dtypes[dtype];
    uint32_t m = z < 0 ? (uint32_t)-z : (uint32_t)z;
    unsigned mantissa_bits = d->precision - 1u, length = fedmrn__bit_length(m);
    /* the value is m * 2^shift quanta (8.4) */
    unsigned shift = (step_bits >> 23) + bias[dtype] + mantissa_bits - 1u - 127u;
    uint64_t bits;
    if (!m) return 0;
    if (length + shift <= mantissa_bits) {
        bits = (uint64_t)m << shift; /* subnormal */
    } else {
        bits = (uint64_t)m << (mantissa_bits + 1 - length); /* the leading one raises the exponent by 1 */
        bits += (uint64_t)(length + shift - mantissa_bits - 1) << mantissa_bits;
    }
    return z < 0 ? bits | (uint64_t)1 << (8 * d->size - 1) : bits;
}

/* spec 6.6: four bits at a time. */
static uint32_t fedmrn__crc32(const uint8_t *bytes, size_t length)
{
    static const uint32_t table[16] = {
        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
        0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c};
    uint32_t crc = 0xFFFFFFFFu;
    size_t i;
    for (i = 0; i < length; i++) {
        crc ^= bytes[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return crc ^ 0xFFFFFFFFu;
}

/* spec 6.8, 6.11: a tensor's mask, entropy-coded, or raw before it is encoded. */
typedef struct {
    const fedmrn_entry *entry;
    uint64_t seed, stream, elements;
} fedmrn__mask;

static fedmrn__mask fedmrn__mask_of(const fedmrn_entry *entry, uint64_t elements, uint64_t seed, uint64_t stream)
{
    fedmrn__mask mask;
    mask.entry = entry;
    mask.seed = seed;
    mask.stream = stream;
    mask.elements = elements;
    return mask;
}

/* spec 6.8: c(i) */
static unsigned fedmrn__bucket(unsigned distribution, int32_t q)
{
    uint32_t bucket = (uint32_t)(q < 0 ? -q : q) >> (distribution == FEDMRN_GAUSSIAN ? 19 : 20);
    return bucket < 15 ? (unsigned)bucket : 15;
}

/* spec 6.8: the elements and the set bits of each bucket. */
typedef struct {
    uint64_t total[16], ones[16];
} fedmrn__histogram;

static void fedmrn__count_bits(fedmrn__histogram *h, unsigned distribution, const int32_t *q, const uint8_t *bits,
                               size_t count)
{
    size_t i;
    for (i = 0; i < count; i++) {
        unsigned c = fedmrn__bucket(distribution, q[i]);
        h->total[c]++;
        h->ones[c] += bits[i];
    }
}

/* spec 6.8: P(c); 512 * 2^48 fits. */
static uint8_t fedmrn__probability(uint64_t ones, uint64_t total)
{
    uint64_t p = total ? (512 * ones + total) / (2 * total) : 128;
    return (uint8_t)(p < 1 ? 1 : p > 255 ? 255 : p);
}

/* spec 6.11: v(k) */
static uint16_t fedmrn__frequency(unsigned k)
{
    if (k > 39) return (uint16_t)(4096 - fedmrn__frequency(78 - k));
    return (uint16_t)(k < 3 ? k + 1 : (4 + (k + 1) % 4) << ((k + 1) / 4 - 1));
}

/* spec 6.11: k(c); 8192 * 2^48 fits. */
static uint8_t fedmrn__index(uint64_t ones, uint64_t total, uint8_t before)
{
    uint8_t k = 0;
    if (!total) return before;
    while (k < 78 && 8192 * ones >= ((uint64_t)fedmrn__frequency(k) + fedmrn__frequency(k + 1u)) * total) k++;
    return k;
}

/* How an entropy-coded mask is coded, spec 6.8 and 6.11: the number of bits of a probability, of states of a block,
 * and of buckets; the probabilities of a set bit; in coding 4 their indices k. */
typedef struct {
    unsigned bits, lanes, buckets;
    uint16_t p[16];
    uint8_t k[16];
} fedmrn__model;

static fedmrn__model fedmrn__model_of(unsigned coding, unsigned distribution)
{
    fedmrn__model model;
    memset(&model, 0, sizeof model);
    model.bits = coding == FEDMRN_CODING_RANS ? 8 : 12;
    model.lanes = coding == FEDMRN_CODING_RANS ? 8 : 1;
    model.buckets = coding == FEDMRN_CODING_RANS12 && distribution == FEDMRN_BERNOULLI ? 1 : 16;
    return model;
}

/* spec 6.8, 6.11: the model that an encoder uses, and that a payload must have [C-04] [C-09]. */
static void fedmrn__fit(fedmrn__model *model, const fedmrn__histogram *h)
{
    unsigned c;
    for (c = 0; c < model->buckets; c++) {
        model->k[c] = fedmrn__index(h->ones[c], h->total[c], c ? model->k[c - 1] : 39);
        model->p[c] = model->bits == 8 ? fedmrn__probability(h->ones[c], h->total[c]) : fedmrn__frequency(model->k[c]);
    }
}

/* spec 6.11: k(0) and the bits of the others, to `out`, which has room for 160 bytes. Returns how many bytes. */
static size_t fedmrn__put_indices(const fedmrn__model *model, uint8_t *out)
{
    size_t at = 8;
    unsigned c;
    memset(out, 0, 160);
    out[0] = model->k[0];
    for (c = 1; c < model->buckets; c++) {
        unsigned less = model->k[c] < model->k[c - 1];
        if (less) out[at / 8] |= (uint8_t)(1u << at % 8);
        at += less ? (size_t)(model->k[c - 1] - model->k[c]) : (size_t)(model->k[c] - model->k[c - 1]) + 1;
        out[at / 8] |= (uint8_t)(1u << at % 8);
        at++;
    }
    return (at + 7) / 8;
}

/* spec 6.11: one of the differences of which the bits consist: a bit, less than 79 bits of 0, and a bit of 1. Returns
 * the bits of 0, or 79 if there are more of them or the bits end before [C-05]. */
static unsigned fedmrn__take_zeros(const uint8_t *p, uint64_t bits, uint64_t *at, unsigned *less)
{
    unsigned zeros;
    if (*at >= bits) return 79;
    *less = fedmrn__mask_bit(p, (*at)++);
    for (zeros = 0; zeros < 79; zeros++) {
        if (*at >= bits) return 79;
        if (fedmrn__mask_bit(p, (*at)++)) break;
    }
    return zeros;
}

/* spec 6.11: k and v of a payload, of which the first `length` bytes may be read. Returns how many bytes they take, or
 * 0 if [C-05] fails. */
static size_t fedmrn__take_indices(fedmrn__model *model, const uint8_t *p, uint64_t length)
{
    uint64_t at = 8;
    unsigned c, less = 0;
    if (p[0] > 78) return 0;
    model->k[0] = p[0];
    for (c = 1; c < model->buckets; c++) {
        unsigned zeros = fedmrn__take_zeros(p, 8 * length, &at, &less), before = model->k[c - 1];
        if (less ? zeros >= before : before + zeros > 78) return 0;
        model->k[c] = (uint8_t)(less ? before - zeros - 1 : before + zeros);
    }
    for (; at % 8; at++)
        if (fedmrn__mask_bit(p, at)) return 0;
    for (c = 0; c < model->buckets; c++) model->p[c] = fedmrn__frequency(model->k[c]);
    return (size_t)(at / 8);
}

/* spec 6.8, 6.10, 6.13: the blocks of an entropy-coded payload, which are read from the first to the last. */
typedef struct {
    uint64_t elements, at; /* those of the tensor; the next one */
    unsigned lanes;        /* states of a block */
    unsigned count_size;   /* bytes of a number of words */
    uint64_t counted;      /* the number of blocks whose words are counted; the words of another one are the rest */
    const uint8_t *counts; /* the numbers of words of the blocks */
    const uint8_t *next;   /* the next block */
    const uint8_t *word, *end; /* the block's words that are not read yet */
    const uint8_t *payload_end;
    uint32_t x[8];         /* the block's states */
    int wrong;             /* [C-03], [C-08] or [C-13] has failed so far */
} fedmrn__blocks_in;

/* The numbers of words begin after the first `head` bytes of the payload. */
static fedmrn__blocks_in fedmrn__blocks_from(const fedmrn_entry *e, uint64_t elements, size_t head)
{
    fedmrn__blocks_in in;
    memset(&in, 0, sizeof in);
    in.elements = elements;
    in.lanes = e->coding == FEDMRN_CODING_RANS ? 8 : 1;
    in.count_size = e->coding == FEDMRN_CODING_RANS14 ? 4 : 2;
    in.counted = fedmrn__blocks(elements) - (e->coding == FEDMRN_CODING_RANS ? 0 : 1);
    in.counts = e->payload + head;
    in.next = in.counts + in.count_size * (size_t)in.counted;
    in.payload_end = e->payload + (size_t)e->length;
    return in;
}

static uint64_t fedmrn__count_at(const fedmrn__blocks_in *in, uint64_t block)
{
    const uint8_t *p = in->counts + in->count_size * (size_t)block;
    return in->count_size == 4 ? fedmrn__u32(p) : fedmrn__u16(p);
}

/* The bytes of the words of a block that begins at `next`. */
static size_t fedmrn__word_bytes(const fedmrn__blocks_in *in, uint64_t block)
{
    if (block == in->counted) return (size_t)(in->payload_end - in->next) - 4 * in->lanes;
    return (size_t)(2 * fedmrn__count_at(in, block));
}

static void fedmrn__skip_block(fedmrn__blocks_in *in, uint64_t block)
{
    in->next += 4 * in->lanes + fedmrn__word_bytes(in, block);
}

/* The block that begins at element `at`. */
static void fedmrn__begin_block(fedmrn__blocks_in *in)
{
    unsigned k;
    for (k = 0; k < in->lanes; k++) in->x[k] = fedmrn__u32(in->next + 4 * k);
    in->word = in->next + 4 * in->lanes;
    fedmrn__skip_block(in, in->at / FEDMRN_BLOCK);
    in->end = in->next;
}

/* spec 6.8 [C-03], 6.11 [C-08], 6.14 [C-13] */
static void fedmrn__end_block(fedmrn__blocks_in *in)
{
    unsigned k;
    in->wrong |= in->word != in->end;
    for (k = 0; k < in->lanes; k++) in->wrong |= in->x[k] != 0x10000u;
}

/* How many of the next elements are decoded at once: at most CHUNK, at most `most`, and none of the next block. */
static size_t fedmrn__next_count(const fedmrn__blocks_in *in, uint64_t most)
{
    uint64_t block_left = FEDMRN_BLOCK - in->at % FEDMRN_BLOCK;
    return fedmrn__chunk((size_t)(most < block_left ? most : block_left));
}

/* `count` elements will be, or were, decoded. */
static void fedmrn__begin_elements(fedmrn__blocks_in *in)
{
    if (in->at % FEDMRN_BLOCK == 0) fedmrn__begin_block(in);
}

static void fedmrn__end_elements(fedmrn__blocks_in *in, size_t count)
{
    in->at += count;
    if (in->at % FEDMRN_BLOCK == 0 || in->at == in->elements) fedmrn__end_block(in);
}

/* spec 6.8, 6.10, 6.13: a state below 2^16 takes the block's next word. */
static uint32_t fedmrn__refill(fedmrn__blocks_in *in, uint32_t x)
{
    if (x >= 0x10000u) return x;
    if (in->word == in->end) {
        in->wrong = 1;
        return x;
    }
    x = x << 16 | fedmrn__u16(in->word);
    in->word += 2;
    return x;
}

/* The draws and the bits of a mask, element by element from a given element on. */
typedef struct {
    fedmrn__mask mask;
    fedmrn__model model;
    fedmrn__blocks_in blocks; /* of a raw mask, only the next element is used */
} fedmrn__bits_in;

/* spec 6.8, 6.11: reads the probabilities of an entropy-coded mask; whether [C-05] is right. */
static int fedmrn__begin_coded(fedmrn__bits_in *in)
{
    const fedmrn_entry *e = in->mask.entry;
    size_t head = 16, c;
    in->model = fedmrn__model_of(e->coding, e->type);
    if (e->coding == FEDMRN_CODING_RANS)
        for (c = 0; c < 16; c++) in->model.p[c] = e->payload[c];
    else
        head = fedmrn__take_indices(&in->model, e->payload, e->length - (6 * fedmrn__blocks(in->mask.elements) - 2));
    in->blocks = fedmrn__blocks_from(e, in->mask.elements, head);
    return head != 0;
}

/* spec 6.8, 6.10: one step of the decoder. P is not 0: a payload of coding 1 with a P of 0 is refused before. */
static uint8_t fedmrn__decode_bit(fedmrn__bits_in *in, unsigned lane, uint32_t p)
{
    uint32_t k = in->model.bits, x = in->blocks.x[lane], s = x & ((1u << k) - 1), bit = s < p;
    x = bit ? p * (x >> k) + s : ((1u << k) - p) * (x >> k) + s - p;
    in->blocks.x[lane] = fedmrn__refill(&in->blocks, x);
    return (uint8_t)bit;
}

/* The draws and bits of the next elements. Returns how many. */
static size_t fedmrn__next_bits(fedmrn__bits_in *in, uint64_t most, int32_t *q, uint8_t *bits)
{
    const fedmrn_entry *e = in->mask.entry;
    uint64_t at = in->blocks.at;
    size_t n = fedmrn__next_count(&in->blocks, most), i;
    fedmrn__draws(e->type, in->mask.seed, in->mask.stream, at, n, q);
    if (!fedmrn__is_coder(e->coding)) {
        for (i = 0; i < n; i++) bits[i] = (uint8_t)fedmrn__mask_bit(e->payload, at + i);
        in->blocks.at += n;
        return n;
    }
    fedmrn__begin_elements(&in->blocks);
    for (i = 0; i < n; i++)
        bits[i] = fedmrn__decode_bit(in, (unsigned)((at + i) % in->model.lanes),
                                     in->model.p[fedmrn__bucket(e->type, q[i])]);
    fedmrn__end_elements(&in->blocks, n);
    return n;
}

/* spec 6.8: from element `start` on; the elements before it in its block, if coded, are decoded and dropped. */
static fedmrn__bits_in fedmrn__bits_from_element(fedmrn__mask mask, uint64_t start)
{
    fedmrn__bits_in in;
    int32_t q[FEDMRN__CHUNK];
    uint8_t bits[FEDMRN__CHUNK];
    uint64_t block;
    memset(&in, 0, sizeof in);
    in.mask = mask;
    in.blocks.at = start;
    if (!fedmrn__is_coder(mask.entry->coding) || start == mask.elements) return in;
    fedmrn__begin_coded(&in);
    for (block = 0; block < start / FEDMRN_BLOCK; block++) fedmrn__skip_block(&in.blocks, block);
    in.blocks.at = start / FEDMRN_BLOCK * FEDMRN_BLOCK;
    while (in.blocks.at < start) fedmrn__next_bits(&in, start - in.blocks.at, q, bits);
    return in;
}

static fedmrn__histogram fedmrn__count_mask(fedmrn__bits_in *in)
{
    fedmrn__histogram h;
    int32_t q[FEDMRN__CHUNK];
    uint8_t bits[FEDMRN__CHUNK];
    memset(&h, 0, sizeof h);
    while (in->blocks.at < in->mask.elements) {
        size_t n = fedmrn__next_bits(in, in->mask.elements - in->blocks.at, q, bits);
        fedmrn__count_bits(&h, in->mask.entry->type, q, bits, n);
    }
    return h;
}

/* spec 6.8, 6.10: encodes elements first .. first + count - 1 of a raw mask, which are one block. The words are written
 * before `end`, if it is given, the states to `x`. Returns how many words. */
static size_t fedmrn__encode_block(const fedmrn__mask *mask, const fedmrn__model *model, uint64_t first, size_t count,
                                   uint32_t x[8], uint8_t *end)
{
    int32_t q[FEDMRN__CHUNK];
    size_t words = 0, n, i;
    uint32_t k = model->bits;
    for (i = 0; i < model->lanes; i++) x[i] = 0x10000u;
    for (; count; count -= n) {
        n = count % FEDMRN__CHUNK ? count % FEDMRN__CHUNK : FEDMRN__CHUNK;
        fedmrn__draws(mask->entry->type, mask->seed, mask->stream, first + count - n, n, q);
        for (i = n; i-- > 0;) {
            uint32_t bit = fedmrn__mask_bit(mask->entry->payload, first + count - n + i), *state = &x[i % model->lanes];
            uint32_t set = model->p[fedmrn__bucket(mask->entry->type, q[i])], f = bit ? set : (1u << k) - set;
            if (*state >> (32 - k) >= f) {
                words++;
                if (end) fedmrn__put(end - 2 * words, *state & 0xFFFF, 2);
                *state >>= 16;
            }
            *state = (*state / f << k) + *state % f + (bit ? 0 : set);
        }
    }
    return words;
}

/* spec 6.8, 6.11: the length of a raw mask in a coding. If `out` is given, which has room for `length` bytes, the bytes
 * are written too, the blocks from the last to the first. */
static uint64_t fedmrn__encode_mask(fedmrn__mask mask, unsigned coding, uint8_t *out, uint64_t length)
{
    uint64_t blocks = fedmrn__blocks(mask.elements), block = blocks, size;
    fedmrn__bits_in in = fedmrn__bits_from_element(mask, 0);
    fedmrn__histogram h = fedmrn__count_mask(&in);
    fedmrn__model model = fedmrn__model_of(coding, mask.entry->type);
    uint8_t head[160], *end = out ? out + (size_t)length : NULL;
    size_t table = 16;
    uint32_t x[8];
    unsigned k;
    fedmrn__fit(&model, &h);
    if (coding == FEDMRN_CODING_RANS)
        for (k = 0; k < 16; k++) head[k] = (uint8_t)model.p[k];
    else
        table = fedmrn__put_indices(&model, head);
    size = table + (4 * model.lanes + 2) * blocks - (coding == FEDMRN_CODING_RANS ? 0 : 2);
    if (out) fedmrn__put_bytes(out, head, table);
    while (block-- > 0) {
        uint64_t first = block * FEDMRN_BLOCK, left = mask.elements - first;
        size_t count = left < FEDMRN_BLOCK ? (size_t)left : FEDMRN_BLOCK;
        size_t words = fedmrn__encode_block(&mask, &model, first, count, x, end);
        size += 2 * words;
        if (!out) continue;
        end -= 4 * model.lanes + 2 * words;
        for (k = 0; k < model.lanes; k++) fedmrn__put(end + 4 * k, x[k], 4);
        if (coding == FEDMRN_CODING_RANS || block + 1 < blocks)
            fedmrn__put(out + table + 2 * (size_t)block, words, 2);
    }
    return size;
}

#define FEDMRN__SYMBOLS 215u /* spec 6.14 */
#define FEDMRN__WHOLE 0x4000u /* spec 6.13: the sum of the frequencies */

/* spec 6.14: an integer as it is coded. */
typedef struct {
    unsigned symbol, bits; /* the number of plain bits */
    uint32_t plain;
} fedmrn__coded_integer;

/* spec 6.14: |z| < 2^24. */
static fedmrn__coded_integer fedmrn__split_integer(int32_t z)
{
    fedmrn__coded_integer coded = {0, 0, 0};
    uint32_t m = z < 0 ? (uint32_t)-z : (uint32_t)z, size = m;
    if (m >= 32) {
        unsigned e = fedmrn__bit_length(m) - 1;
        coded.bits = e - 2;
        coded.plain = m & (((uint32_t)1 << coded.bits) - 1);
        size = 32 + 4 * (e - 5) + (m >> coded.bits & 3);
    }
    coded.symbol = z > 0 ? 2 * size - 1 : 2 * size;
    return coded;
}

/* spec 6.14: d, the number of plain bits that follow a symbol. */
static unsigned fedmrn__plain_bits(unsigned symbol)
{
    unsigned size = (symbol + 1) / 2;
    return size < 32 ? 0 : (size - 32) / 4 + 3;
}

static int32_t fedmrn__join_integer(unsigned symbol, uint32_t plain)
{
    unsigned size = (symbol + 1) / 2;
    uint32_t m = size < 32 ? size : ((4 + (size - 32) % 4) << fedmrn__plain_bits(symbol)) + plain;
    return symbol % 2 ? (int32_t)m : -(int32_t)m;
}

/* spec 6.14: the frequencies that an encoder uses, and that a payload must have [C-14]; 16384 * 2^48 fits. */
static void fedmrn__fit_frequencies(const uint64_t counts[FEDMRN__SYMBOLS], uint64_t elements,
                                    uint16_t f[FEDMRN__SYMBOLS])
{
    int32_t missing = (int32_t)FEDMRN__WHOLE;
    unsigned s, most = 0;
    for (s = 0; s < FEDMRN__SYMBOLS; s++) {
        uint64_t share = FEDMRN__WHOLE * counts[s] / elements;
        f[s] = (uint16_t)(counts[s] && !share ? 1 : share);
        missing -= f[s];
        if (counts[s] > counts[most]) most = s;
    }
    f[most] = (uint16_t)(f[most] + missing);
}

/* The most bytes of `last` and the frequencies: 29 bits each, though they cannot all have so many. */
#define FEDMRN__MOST_FREQUENCY_BYTES (1 + (29 * (FEDMRN__SYMBOLS - 1) + 7) / 8)

/* spec 6.14: to `out`, which has room for MOST_FREQUENCY_BYTES. Returns how many bytes. */
static size_t fedmrn__put_frequencies(const uint16_t f[FEDMRN__SYMBOLS], uint8_t *out)
{
    unsigned last = FEDMRN__SYMBOLS - 1, s, k, bit;
    size_t at = 8;
    memset(out, 0, FEDMRN__MOST_FREQUENCY_BYTES);
    while (last && !f[last]) last--;
    out[0] = (uint8_t)last;
    for (s = 1; s <= last; s++) {
        uint32_t v = f[s] + 1u;
        k = fedmrn__bit_length(v) - 1;
        at += k;
        out[at / 8] |= (uint8_t)(1u << at % 8);
        at++;
        for (bit = 0; bit < k; bit++, at++) out[at / 8] |= (uint8_t)((v >> bit & 1) << at % 8);
    }
    return (at + 7) / 8;
}

/* spec 6.14: the frequency that begins at bit `at` of `bits`; WHOLE + 1 if it is cut off, or has a k above 14. */
static uint32_t fedmrn__take_frequency(const uint8_t *p, uint64_t bits, uint64_t *at)
{
    uint32_t v;
    unsigned k = 0, bit;
    while (*at < bits && k <= 14 && !fedmrn__mask_bit(p, *at)) {
        (*at)++;
        k++;
    }
    if (k > 14 || bits - *at < k + 1u) return FEDMRN__WHOLE + 1;
    (*at)++;
    v = (uint32_t)1 << k;
    for (bit = 0; bit < k; bit++) v |= fedmrn__mask_bit(p, (*at)++) << bit;
    return v - 1;
}

/* The integers of a grid, element by element from a given element on. */
typedef struct {
    const fedmrn_entry *entry;
    fedmrn__blocks_in blocks;            /* of a raw grid, only the next element is used */
    unsigned last;                       /* spec 6.14 */
    uint16_t start[FEDMRN__SYMBOLS + 1]; /* those of symbols 0 .. last, and then WHOLE */
    uint8_t first[256];                  /* the symbol of y = 64 k */
} fedmrn__integers_in;

/* spec 6.14: reads the frequencies of a payload, in its first `length` bytes. Returns how many bytes they take, or 0 if
 * [C-10] fails. */
static size_t fedmrn__take_frequencies(fedmrn__integers_in *in, const uint8_t *p, uint64_t length)
{
    uint64_t at = 8;
    uint32_t sum = 0, f = 0;
    unsigned s, k;
    in->last = p[0];
    if (in->last >= FEDMRN__SYMBOLS) return 0;
    for (s = 1; s <= in->last; s++) {
        in->start[s] = (uint16_t)sum; /* without f(0) so far */
        f = fedmrn__take_frequency(p, 8 * length, &at);
        sum += f;
        if (sum > FEDMRN__WHOLE) return 0;
    }
    if (in->last && !f) return 0;
    for (; at % 8; at++)
        if (fedmrn__mask_bit(p, at)) return 0;
    in->start[0] = 0;
    for (s = 1; s <= in->last; s++) in->start[s] = (uint16_t)(in->start[s] + (FEDMRN__WHOLE - sum));
    in->start[in->last + 1] = FEDMRN__WHOLE;
    for (k = 0, s = 0; k < 256; k++) {
        while (in->start[s + 1] <= 64 * k) s++;
        in->first[k] = (uint8_t)s;
    }
    return (size_t)(at / 8);
}

/* spec 6.14: whether [C-10] is right. */
static int fedmrn__begin_grid(fedmrn__integers_in *in, uint64_t elements)
{
    const fedmrn_entry *e = in->entry;
    size_t head = fedmrn__take_frequencies(in, e->payload, e->length - (8 * fedmrn__blocks(elements) - 4));
    in->blocks = fedmrn__blocks_from(e, elements, head);
    return head != 0;
}

/* spec 6.13: the first symbol whose end is beyond y, which is below WHOLE; so its frequency is not 0. */
static unsigned fedmrn__symbol_at(const fedmrn__integers_in *in, uint32_t y)
{
    unsigned symbol = in->first[y / 64];
    while (in->start[symbol + 1] <= y) symbol++;
    return symbol;
}

/* spec 6.13: plain bits, 1 to 16 of them. */
static uint32_t fedmrn__decode_plain(fedmrn__integers_in *in, unsigned bits)
{
    uint32_t x = in->blocks.x[0];
    in->blocks.x[0] = fedmrn__refill(&in->blocks, x >> bits);
    return x & (((uint32_t)1 << bits) - 1);
}

/* spec 6.13, 6.14 */
static int32_t fedmrn__decode_integer(fedmrn__integers_in *in)
{
    uint32_t x = in->blocks.x[0], y = x & (FEDMRN__WHOLE - 1), plain = 0;
    unsigned symbol = fedmrn__symbol_at(in, y), bits = fedmrn__plain_bits(symbol);
    uint32_t f = (uint32_t)in->start[symbol + 1] - in->start[symbol];
    in->blocks.x[0] = fedmrn__refill(&in->blocks, f * (x >> 14) + y - in->start[symbol]);
    if (bits) plain = fedmrn__decode_plain(in, bits < 16 ? bits : 16);
    if (bits > 16) plain |= fedmrn__decode_plain(in, bits - 16) << 16;
    return fedmrn__join_integer(symbol, plain);
}

static int32_t fedmrn__raw_integer(const uint8_t *payload, uint64_t i)
{
    uint32_t bits = fedmrn__u32(payload + 4 * (size_t)i);
    return bits >> 31 ? -(int32_t)~bits - 1 : (int32_t)bits;
}

/* The next integers. Returns how many. */
static size_t fedmrn__next_integers(fedmrn__integers_in *in, uint64_t most, int32_t *z)
{
    size_t n = fedmrn__next_count(&in->blocks, most), i;
    if (in->entry->coding == FEDMRN_CODING_RAW) {
        for (i = 0; i < n; i++) z[i] = fedmrn__raw_integer(in->entry->payload, in->blocks.at + i);
        in->blocks.at += n;
        return n;
    }
    fedmrn__begin_elements(&in->blocks);
    for (i = 0; i < n; i++) z[i] = fedmrn__decode_integer(in);
    fedmrn__end_elements(&in->blocks, n);
    return n;
}

/* From element `start` on; the elements before it in its block, if coded, are decoded and dropped. */
static fedmrn__integers_in fedmrn__integers_from(const fedmrn_entry *e, uint64_t elements, uint64_t start)
{
    fedmrn__integers_in in;
    int32_t z[FEDMRN__CHUNK];
    uint64_t block;
    memset(&in, 0, sizeof in);
    in.entry = e;
    in.blocks.at = start;
    if (e->coding == FEDMRN_CODING_RAW || start == elements) return in;
    fedmrn__begin_grid(&in, elements);
    for (block = 0; block < start / FEDMRN_BLOCK; block++) fedmrn__skip_block(&in.blocks, block);
    in.blocks.at = start / FEDMRN_BLOCK * FEDMRN_BLOCK;
    while (in.blocks.at < start) fedmrn__next_integers(&in, start - in.blocks.at, z);
    return in;
}

/* spec 6.14: c(s) of `elements` integers, which `in` gives from the first on. Returns the largest of them, without its
 * sign. */
static int32_t fedmrn__count_symbols(fedmrn__integers_in *in, uint64_t elements, uint64_t counts[FEDMRN__SYMBOLS])
{
    int32_t z[FEDMRN__CHUNK], largest = 0;
    memset(counts, 0, FEDMRN__SYMBOLS * sizeof *counts);
    while (in->blocks.at < elements) {
        size_t n = fedmrn__next_integers(in, elements - in->blocks.at, z), i;
        for (i = 0; i < n; i++) {
            counts[fedmrn__split_integer(z[i]).symbol]++;
            if (z[i] > largest || z[i] < -largest) largest = z[i] < 0 ? -z[i] : z[i];
        }
    }
    return largest;
}

/* spec 6.13: the state of an encoder and its words, which are written before `end`, if it is given. */
typedef struct {
    uint32_t x;
    size_t words;
    uint8_t *end;
} fedmrn__words_out;

static void fedmrn__put_word(fedmrn__words_out *out)
{
    out->words++;
    if (out->end) fedmrn__put(out->end - 2 * out->words, out->x & 0xFFFF, 2);
    out->x >>= 16;
}

static void fedmrn__encode_plain(fedmrn__words_out *out, uint32_t plain, unsigned bits)
{
    if (out->x >> (32 - bits)) fedmrn__put_word(out);
    out->x = out->x << bits | plain;
}

/* spec 6.13, 6.14: the plain bits, those that are decoded last first, and the symbol. */
static void fedmrn__encode_integer(fedmrn__words_out *out, int32_t z, const uint16_t *f, const uint16_t *start)
{
    fedmrn__coded_integer coded = fedmrn__split_integer(z);
    uint32_t frequency = f[coded.symbol];
    if (coded.bits > 16) fedmrn__encode_plain(out, coded.plain >> 16, coded.bits - 16);
    if (coded.bits) fedmrn__encode_plain(out, coded.plain & 0xFFFF, coded.bits < 16 ? coded.bits : 16);
    if (out->x >> 18 >= frequency) fedmrn__put_word(out);
    out->x = (out->x / frequency << 14) + out->x % frequency + start[coded.symbol];
}

/* The integers that an encoder gets: those of a raw grid, or the counts of a tally (8.6) less `middle`. */
typedef struct {
    const uint8_t *payload;
    const uint32_t *counts; /* or NULL */
    int32_t middle;
} fedmrn__integers;

static int32_t fedmrn__integer_at(const fedmrn__integers *from, uint64_t i)
{
    if (from->counts) return (int32_t)from->counts[(size_t)i] - from->middle;
    return fedmrn__raw_integer(from->payload, i);
}

/* spec 6.14: the length of one integer or more in coding 5. If `out` is given, which has room for `length` bytes, the
 * bytes are written too, the blocks from the last to the first. */
static uint64_t fedmrn__encode_integers(fedmrn__integers from, uint64_t elements, uint8_t *out, uint64_t length)
{
    uint64_t blocks = fedmrn__blocks(elements), block = blocks, size, counts[FEDMRN__SYMBOLS] = {0}, k;
    uint16_t f[FEDMRN__SYMBOLS], start[FEDMRN__SYMBOLS];
    uint8_t head[FEDMRN__MOST_FREQUENCY_BYTES], *end = out ? out + (size_t)length : NULL;
    size_t table;
    unsigned s;
    for (k = 0; k < elements; k++) counts[fedmrn__split_integer(fedmrn__integer_at(&from, k)).symbol]++;
    fedmrn__fit_frequencies(counts, elements, f);
    for (start[0] = 0, s = 1; s < FEDMRN__SYMBOLS; s++) start[s] = (uint16_t)(start[s - 1] + f[s - 1]);
    table = fedmrn__put_frequencies(f, head);
    size = table + 8 * blocks - 4;
    if (out) fedmrn__put_bytes(out, head, table);
    while (block-- > 0) {
        uint64_t first = block * FEDMRN_BLOCK, left = elements - first;
        size_t i = left < FEDMRN_BLOCK ? (size_t)left : FEDMRN_BLOCK;
        fedmrn__words_out words = {0x10000u, 0, NULL};
        words.end = end;
        while (i-- > 0) fedmrn__encode_integer(&words, fedmrn__integer_at(&from, first + i), f, start);
        size += 2 * words.words;
        if (!out) continue;
        end -= 4 + 2 * words.words;
        fedmrn__put(end, words.x, 4);
        if (block + 1 < blocks) fedmrn__put(out + table + 4 * (size_t)block, words.words, 4);
    }
    return size;
}

static uint64_t fedmrn__encode_grid(const fedmrn_entry *raw, uint64_t elements, uint8_t *out, uint64_t length)
{
    fedmrn__integers from = {raw->payload, NULL, 0};
    return fedmrn__encode_integers(from, elements, out, length);
}

/* spec 6.9: the dtype that the elements of a dense payload have. */
static unsigned fedmrn__payload_dtype(const fedmrn_tensor *t, unsigned coding)
{
    if (coding == FEDMRN_CODING_FLOAT16) return FEDMRN_FLOAT16;
    if (coding == FEDMRN_CODING_BFLOAT16) return FEDMRN_BFLOAT16;
    return t->dtype;
}

/* spec 6.9: the f32 of the same value, as bits; a subnormal float16 gets its leading one from its mantissa. */
static uint32_t fedmrn__widen_float16(uint32_t half)
{
    uint32_t sign = (half & 0x8000u) << 16, exponent = half >> 10 & 31, mantissa = half & 0x3FFu, length;
    if (exponent) return sign | (exponent + 112) << 23 | mantissa << 13;
    length = fedmrn__bit_length(mantissa);
    return length ? sign | (length + 102) << 23 | (mantissa << (24 - length) & 0x7FFFFFu) : sign;
}

/* spec 6.9: x / 2^shift to the nearest integer, ties to even; shift is 1 .. 25, x below 2^31. */
static uint32_t fedmrn__round_shift(uint32_t x, unsigned shift)
{
    return (x + (((uint32_t)1 << (shift - 1)) - 1) + (x >> shift & 1)) >> shift;
}

/* spec 6.9: an f32, as bits, to the nearest float16 or bfloat16; `non_finite` if that is not finite. */
static fedmrn_code fedmrn__narrow(unsigned coding, uint32_t bits, uint32_t *half)
{
    uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7FFFFFFFu;
    uint32_t exponent = magnitude >> 23, infinity = 0x7F80u;
    if (coding == FEDMRN_CODING_BFLOAT16) {
        magnitude = fedmrn__round_shift(magnitude, 16);
    } else {
        infinity = 0x7C00u;
        if (exponent > 112) magnitude = fedmrn__round_shift(magnitude - ((uint32_t)112 << 23), 13);
        else if (exponent > 100) magnitude = fedmrn__round_shift((magnitude & 0x7FFFFFu) | 0x800000u, 126 - exponent);
        else magnitude = 0; /* below half of 2^-24 */
    }
    *half = sign | magnitude;
    return magnitude >= infinity ? FEDMRN_NON_FINITE : FEDMRN_OK;
}

/* spec 6.5, 6.9: the bits of element i of a dense tensor, in its dtype. */
static uint64_t fedmrn__element(const fedmrn_tensor *t, const fedmrn_entry *e, size_t i)
{
    unsigned size = fedmrn__dtypes[fedmrn__payload_dtype(t, e->coding)].size;
    uint64_t bits = fedmrn__load(e->payload + i * size, size);
    if (e->coding == FEDMRN_CODING_FLOAT16) return fedmrn__widen_float16((uint32_t)bits);
    return e->coding == FEDMRN_CODING_BFLOAT16 ? bits << 16 : bits;
}

static fedmrn_status fedmrn__check_entry(const fedmrn_tensor *t, const fedmrn_entry *e, unsigned minor,
                                         unsigned reserved, uint64_t at);
static fedmrn_status fedmrn__check_payload(const fedmrn_tensor *t, const fedmrn_entry *e, uint64_t seed,
                                           uint64_t stream, uint64_t at);

/* The payload that an encoder gets: coding 0. */
static fedmrn_entry fedmrn__as_raw(const fedmrn_entry *e)
{
    fedmrn_entry raw = *e;
    raw.coding = FEDMRN_CODING_RAW;
    return raw;
}

/* spec 6.9 [E-02] */
static fedmrn_code fedmrn__check_narrow(const fedmrn_entry *e)
{
    fedmrn_code code = FEDMRN_OK;
    uint32_t half;
    size_t i;
    if (!fedmrn__is_half(e->coding)) return FEDMRN_OK;
    for (i = 0; i < (size_t)e->length && !code; i += 4)
        code = fedmrn__narrow(e->coding, fedmrn__u32(e->payload + i), &half);
    return code;
}

/* spec 6.7 [E-01] [E-02] */
static fedmrn_code fedmrn__check_update(const fedmrn_update *update)
{
    fedmrn_code code = FEDMRN_OK;
    size_t k;
    if (update->entry_count != update->schema->count) return FEDMRN_TENSOR_COUNT;
    for (k = 0; k < update->entry_count && !code; k++) {
        const fedmrn_tensor *t = &update->schema->tensors[k];
        fedmrn_entry raw = fedmrn__as_raw(&update->entries[k]);
        code = fedmrn__check_entry(t, &raw, FEDMRN__MINOR, 0, 0).code;
        if (!code && !fedmrn__coding_allowed(t, raw.kind, update->entries[k].coding, FEDMRN__MINOR))
            code = FEDMRN_UNKNOWN_CODING;
        if (!code) code = fedmrn__check_payload(t, &raw, update->seed, k, 0).code;
        if (!code) code = fedmrn__check_narrow(&update->entries[k]);
    }
    if (update->embed_schema && update->schema->length > 0xFFFFFFFFu) return code ? code : FEDMRN_LIMIT;
    return code;
}

/* spec 6.7 [E-03] [E-04]: the entry of a tensor as it will be written; its payload is still raw. */
static fedmrn_entry fedmrn__written_entry(const fedmrn_update *update, size_t k)
{
    uint64_t elements = update->schema->tensors[k].elements, length;
    fedmrn_entry raw = fedmrn__as_raw(&update->entries[k]), e = update->entries[k];
    if (fedmrn__is_half(e.coding)) e.length /= 2;
    if (!fedmrn__is_coder(e.coding)) return e;
    if (fedmrn__least_coded(e.coding, elements) >= e.length) return raw;
    if (e.kind == FEDMRN_KIND_GRID) length = fedmrn__encode_grid(&raw, elements, NULL, 0);
    else length = fedmrn__encode_mask(fedmrn__mask_of(&raw, elements, update->seed, k), e.coding, NULL, 0);
    if (length >= e.length) return raw;
    e.length = length;
    return e;
}

/* spec 6.1 */
fedmrn_code fedmrn_frame_size(const fedmrn_update *update, size_t *size)
{
    fedmrn_code code = fedmrn__check_update(update);
    size_t left = SIZE_MAX - FEDMRN__HEADER - FEDMRN__CHECKSUM, k;
    if (code) return code;
    if (update->embed_schema) {
        if (left - 4 < update->schema->length) return FEDMRN_MEMORY;
        left -= 4 + update->schema->length;
    }
    for (k = 0; k < update->entry_count; k++) {
        fedmrn_entry e = fedmrn__written_entry(update, k);
        size_t entry = e.kind == FEDMRN_KIND_DENSE ? 12 : 16;
        if (left < entry || left - entry < e.length) return FEDMRN_MEMORY;
        left -= entry + (size_t)e.length;
    }
    *size = SIZE_MAX - left;
    return FEDMRN_OK;
}

/* spec 6.2: minor version 0; overwritten later if a kind or coding needs a higher one. */
static uint8_t *fedmrn__put_header(uint8_t *p, const fedmrn_update *update)
{
    p = fedmrn__put(p, 0x4E524D46u, 4); /* "FMRN" */
    p = fedmrn__put(p, 1, 1);
    p = fedmrn__put(p, 0, 1);
    p = fedmrn__put(p, update->embed_schema != 0, 2);
    p = fedmrn__put(p, update->seed, 8);
    p = fedmrn__put(p, update->base_model, 8);
    p = fedmrn__put(p, update->round, 4);
    p = fedmrn__put(p, update->schema->count, 4);
    return fedmrn__put_bytes(p, update->schema->digest, 16);
}

/* spec 6.4 */
static uint8_t *fedmrn__put_entry(uint8_t *p, const fedmrn_entry *e)
{
    p = fedmrn__put(p, e->kind, 1);
    p = fedmrn__put(p, e->type, 1);
    p = fedmrn__put(p, e->coding, 2); /* and reserved, 0 */
    p = fedmrn__put(p, e->length, 8);
    return e->kind == FEDMRN_KIND_DENSE ? p : fedmrn__put(p, e->scale_bits, 4);
}

/* spec 6.5, 6.8 to 6.14 */
static uint8_t *fedmrn__put_payload(uint8_t *p, const fedmrn_entry *e, const fedmrn__mask *raw)
{
    const uint8_t *from = raw->entry->payload;
    uint64_t i;
    if (e->coding == FEDMRN_CODING_RAW) return fedmrn__put_bytes(p, from, (size_t)e->length);
    if (fedmrn__is_coder(e->coding)) {
        if (e->kind == FEDMRN_KIND_GRID) fedmrn__encode_grid(raw->entry, raw->elements, p, e->length);
        else fedmrn__encode_mask(*raw, e->coding, p, e->length);
        return p + (size_t)e->length;
    }
    for (i = 0; i < raw->elements; i++) {
        uint32_t half = 0;
        fedmrn__narrow(e->coding, fedmrn__u32(from + 4 * (size_t)i), &half);
        p = fedmrn__put(p, half, 2);
    }
    return p;
}

/* spec 6.1: the table and the payloads are written in one pass over the tensors. */
fedmrn_code fedmrn_frame_write(const fedmrn_update *update, uint8_t *out, size_t capacity)
{
    size_t size = 0, k;
    fedmrn_code code = fedmrn_frame_size(update, &size);
    uint8_t *p = out, *payload;
    if (code) return code;
    if (capacity < size) return FEDMRN_MEMORY;
    p = fedmrn__put_header(p, update);
    if (update->embed_schema) {
        p = fedmrn__put(p, update->schema->length, 4);
        p = fedmrn__put_bytes(p, update->schema->bytes, update->schema->length);
    }
    for (payload = p, k = 0; k < update->entry_count; k++)
        payload += update->entries[k].kind == FEDMRN_KIND_DENSE ? 12 : 16;
    for (k = 0; k < update->entry_count; k++) {
        fedmrn_entry e = fedmrn__written_entry(update, k), raw = fedmrn__as_raw(&update->entries[k]);
        fedmrn__mask mask = fedmrn__mask_of(&raw, update->schema->tensors[k].elements, update->seed, k);
        if (fedmrn__minor_of(e.kind, e.coding) > out[5]) out[5] = (uint8_t)fedmrn__minor_of(e.kind, e.coding);
        p = fedmrn__put_entry(p, &e);
        payload = fedmrn__put_payload(payload, &e, &mask);
    }
    fedmrn__put(payload, fedmrn__crc32(out, size - FEDMRN__CHECKSUM), FEDMRN__CHECKSUM);
    return FEDMRN_OK;
}

/* spec 4.2, 6.5, 6.8 [M-02] */
static void fedmrn__decode_masked(const fedmrn_frame *frame, uint32_t tensor, uint64_t start, size_t count,
                                  uint8_t *out)
{
    const fedmrn_entry *e = &frame->entries[tensor];
    fedmrn__mask mask = fedmrn__mask_of(e, frame->schema->tensors[tensor].elements, frame->seed, tensor);
    fedmrn__bits_in in = fedmrn__bits_from_element(mask, start);
    float step = fedmrn__step(e->type, e->scale_bits);
    int32_t q[FEDMRN__CHUNK];
    uint8_t bits[FEDMRN__CHUNK];
    uint32_t values[FEDMRN__CHUNK];
    size_t done, n, i;
    for (done = 0; done < count; done += n) {
        n = fedmrn__next_bits(&in, count - done, q, bits);
        for (i = 0; i < n; i++) values[i] = fedmrn__masked_bits(e->kind, bits[i], (float)((float)q[i] * step));
        memcpy(out + 4 * done, values, 4 * n);
    }
}

/* spec 6.12 */
static void fedmrn__decode_grid(const fedmrn_frame *frame, uint32_t tensor, uint64_t start, size_t count, uint8_t *out)
{
    const fedmrn_entry *e = &frame->entries[tensor];
    fedmrn__integers_in in = fedmrn__integers_from(e, frame->schema->tensors[tensor].elements, start);
    int32_t z[FEDMRN__CHUNK];
    unsigned size = fedmrn__dtypes[e->type].size;
    size_t done, n, i;
    for (done = 0; done < count; done += n) {
        n = fedmrn__next_integers(&in, count - done, z);
        for (i = 0; i < n; i++) out = fedmrn__put_native(out, fedmrn__grid_value(e->type, e->scale_bits, z[i]), size);
    }
}

/* spec 6.5, 6.9 */
fedmrn_code fedmrn_frame_decode(const fedmrn_frame *frame, uint32_t tensor, uint64_t start, size_t count, void *out)
{
    const fedmrn_tensor *t;
    const fedmrn_entry *e;
    uint8_t *p = (uint8_t *)out;
    size_t i;
    if (tensor >= frame->schema->count) return FEDMRN_ARGUMENT;
    t = &frame->schema->tensors[tensor];
    e = &frame->entries[tensor];
    if (start > t->elements || count > t->elements - start) return FEDMRN_ARGUMENT;
    if (e->kind != FEDMRN_KIND_DENSE) {
        if (e->kind == FEDMRN_KIND_GRID) fedmrn__decode_grid(frame, tensor, start, count, p);
        else fedmrn__decode_masked(frame, tensor, start, count, p);
        return FEDMRN_OK;
    }
    for (i = 0; i < count; i++)
        p = fedmrn__put_native(p, fedmrn__element(t, e, (size_t)start + i), fedmrn__dtypes[t->dtype].size);
    return FEDMRN_OK;
}

/* ---------------------------------------- 7 Checks ---------------------------------------- */

/* spec 9.2 */
fedmrn_demands fedmrn_no_demands(void)
{
    fedmrn_demands demands;
    memset(&demands, 0, sizeof demands);
    demands.schema = NULL;
    demands.max_tensors = 65536;
    demands.max_schema_bytes = (uint64_t)1 << 24;
    demands.max_elements = (uint64_t)1 << 34;
    return demands;
}

/* spec 7.3 [F-01] to [F-05] */
static fedmrn_status fedmrn__check_header(fedmrn_frame *frame, const fedmrn_demands *demands)
{
    const uint8_t *p = frame->bytes;
    if (frame->length < FEDMRN__HEADER + FEDMRN__CHECKSUM) return fedmrn__fail(FEDMRN_TRUNCATED, frame->length);
    if (memcmp(p, "FMRN", 4) != 0) return fedmrn__fail(FEDMRN_MAGIC, 0);
    if (p[4] != 1 || p[5] > FEDMRN__MINOR) return fedmrn__fail(FEDMRN_VERSION, 4);
    frame->minor = p[5];
    frame->flags = fedmrn__u16(p + 6);
    frame->seed = fedmrn__u64(p + 8);
    frame->base_model = fedmrn__u64(p + 16);
    frame->round = fedmrn__u32(p + 24);
    frame->tensor_count = fedmrn__u32(p + 28);
    if (frame->flags >> 1) return fedmrn__fail(FEDMRN_RESERVED, 6);
    if (frame->tensor_count > demands->max_tensors) return fedmrn__fail(FEDMRN_LIMIT, 28);
    return fedmrn__ok();
}

/* spec 7.3 [F-06] to [F-08]: where the embedded schema is. */
static fedmrn_status fedmrn__find_schema(fedmrn__in *in, const fedmrn_demands *demands, const uint8_t **schema,
                                         size_t *length)
{
    uint32_t size;
    if (!fedmrn__has(in, 4)) return fedmrn__fail(FEDMRN_TRUNCATED, in->at);
    size = fedmrn__u32(fedmrn__take(in, 4));
    if (size > demands->max_schema_bytes) return fedmrn__fail(FEDMRN_LIMIT, in->at - 4);
    if (!fedmrn__has(in, size)) return fedmrn__fail(FEDMRN_TRUNCATED, in->at);
    *length = size;
    *schema = fedmrn__take(in, size);
    return fedmrn__ok();
}

/* spec 7.3 [F-06] to [F-08], [S-01] to [S-09] */
static fedmrn_status fedmrn__check_embedded(fedmrn_frame *frame, fedmrn__in *in, const fedmrn_demands *demands,
                                            const fedmrn_memory *memory)
{
    const uint8_t *schema = NULL;
    size_t length = 0;
    fedmrn_status status = fedmrn__find_schema(in, demands, &schema, &length);
    if (status.code) return status;
    status = fedmrn__read_schema(&frame->embedded, schema, length, memory->tensors, memory->tensor_capacity,
                                 demands->max_tensors);
    if (status.code) return fedmrn__fail(status.code, status.offset + (uint64_t)(schema - frame->bytes));
    if (!fedmrn__elements_within(&frame->embedded, demands->max_elements))
        return fedmrn__fail(FEDMRN_LIMIT, (uint64_t)(schema - frame->bytes));
    if (memcmp(frame->embedded.digest, frame->bytes + 32, 16) != 0) return fedmrn__fail(FEDMRN_SCHEMA_DIGEST, 32);
    frame->schema = &frame->embedded;
    return fedmrn__ok();
}

/* spec 7.3 [F-09] to [F-14] */
static fedmrn_status fedmrn__check_agreement(fedmrn_frame *frame, const fedmrn_demands *demands)
{
    if (demands->schema) frame->schema = demands->schema;
    if (!frame->schema) return fedmrn__fail(FEDMRN_NO_SCHEMA, 6);
    if (memcmp(frame->schema->digest, frame->bytes + 32, 16) != 0) return fedmrn__fail(FEDMRN_SCHEMA_MISMATCH, 32);
    if (frame->tensor_count != frame->schema->count) return fedmrn__fail(FEDMRN_TENSOR_COUNT, 28);
    if (demands->wants_round && frame->round != demands->round) return fedmrn__fail(FEDMRN_ROUND, 24);
    if (demands->wants_base_model && frame->base_model != demands->base_model)
        return fedmrn__fail(FEDMRN_BASE_MODEL, 16);
    if (demands->wants_seed && frame->seed != demands->seed) return fedmrn__fail(FEDMRN_SEED, 8);
    return fedmrn__ok();
}

/* spec 7.3 [F-17] */
static int fedmrn__kind_fits(const fedmrn_tensor *t, unsigned kind)
{
    if (t->role == FEDMRN_ROLE_MASKED) return kind != FEDMRN_KIND_DENSE;
    return kind == FEDMRN_KIND_DENSE || (kind == FEDMRN_KIND_GRID && fedmrn__is_float(t->dtype));
}

/* spec 7.3 [F-16] to [F-24]: an entry against its tensor; `at` is where the entry begins. */
static fedmrn_status fedmrn__check_entry(const fedmrn_tensor *t, const fedmrn_entry *e, unsigned minor,
                                         unsigned reserved, uint64_t at)
{
    int grid = e->kind == FEDMRN_KIND_GRID;
    fedmrn_code scale = FEDMRN_OK;
    if (e->kind > FEDMRN_KIND_GRID || (grid && minor < 3)) return fedmrn__fail(FEDMRN_UNKNOWN_KIND, at);
    if (!fedmrn__kind_fits(t, e->kind)) return fedmrn__fail(FEDMRN_KIND_MISMATCH, at);
    if (fedmrn__is_mask(e->kind)) {
        scale = fedmrn_check_scale(e->type, e->scale_bits);
        if (scale == FEDMRN_UNKNOWN_DISTRIBUTION) return fedmrn__fail(scale, at + 1);
    } else {
        if (grid ? !fedmrn__is_float(e->type) : !fedmrn__dtype_known(e->type))
            return fedmrn__fail(FEDMRN_UNKNOWN_DTYPE, at + 1);
        if (e->type != t->dtype) return fedmrn__fail(FEDMRN_DTYPE_MISMATCH, at + 1);
        if (grid) scale = fedmrn__check_step(e->type, e->scale_bits);
    }
    if (!fedmrn__coding_allowed(t, e->kind, e->coding, minor)) return fedmrn__fail(FEDMRN_UNKNOWN_CODING, at + 2);
    if (reserved) return fedmrn__fail(FEDMRN_RESERVED, at + 3);
    if (!fedmrn__length_allowed(t, e->kind, e->coding, e->length)) return fedmrn__fail(FEDMRN_PAYLOAD_LENGTH, at + 4);
    return scale ? fedmrn__fail(scale, at + 12) : fedmrn__ok();
}

/* spec 6.4, 7.3 [F-15] to [F-24] */
static fedmrn_status fedmrn__read_entry(fedmrn__in *in, const fedmrn_tensor *t, unsigned minor, fedmrn_entry *e)
{
    size_t at = in->at;
    const uint8_t *p;
    if (!fedmrn__has(in, 12)) return fedmrn__fail(FEDMRN_TRUNCATED, at);
    p = fedmrn__take(in, 12);
    e->kind = p[0];
    e->type = p[1];
    e->coding = p[2];
    e->length = fedmrn__u64(p + 4);
    e->scale_bits = 0;
    if (fedmrn__is_mask(e->kind) || (e->kind == FEDMRN_KIND_GRID && minor >= 3)) {
        if (!fedmrn__has(in, 4)) return fedmrn__fail(FEDMRN_TRUNCATED, at + 12);
        e->scale_bits = fedmrn__u32(fedmrn__take(in, 4));
    }
    return fedmrn__check_entry(t, e, minor, p[3], at);
}

/* spec 7.3, the table; then [F-31], [F-25] to [F-27]. Each length is subtracted from the bytes left, so that no sum
 * of lengths can overflow. */
static fedmrn_status fedmrn__check_whole(fedmrn_frame *frame, fedmrn__in *in, fedmrn_entry *entries)
{
    size_t end = frame->length - FEDMRN__CHECKSUM;
    fedmrn_status status;
    unsigned minor = 0, needed;
    uint32_t k;
    for (k = 0; k < frame->tensor_count; k++) {
        status = fedmrn__read_entry(in, &frame->schema->tensors[k], frame->minor, &entries[k]);
        if (status.code) return status;
        needed = fedmrn__minor_of(entries[k].kind, entries[k].coding);
        if (needed > minor) minor = needed;
    }
    if (frame->minor != minor) return fedmrn__fail(FEDMRN_MINOR, 5);
    for (k = 0; k < frame->tensor_count; k++) {
        if (!fedmrn__has(in, entries[k].length)) return fedmrn__fail(FEDMRN_TRUNCATED, in->at);
        entries[k].payload = fedmrn__take(in, (size_t)entries[k].length);
    }
    if (in->at != end) return fedmrn__fail(FEDMRN_TRAILING, in->at);
    if (fedmrn__crc32(frame->bytes, end) != fedmrn__u32(frame->bytes + end))
        return fedmrn__fail(FEDMRN_CHECKSUM, end);
    return fedmrn__ok();
}

/* spec 5.3, 7.3 [F-29]: the exponent is not all ones. */
static int fedmrn__finite(unsigned dtype, uint64_t bits)
{
    unsigned mantissa = fedmrn__dtypes[dtype].precision - 1u, total = 8u * fedmrn__dtypes[dtype].size;
    uint64_t ones = ((uint64_t)1 << (total - 1 - mantissa)) - 1;
    return (bits >> mantissa & ones) != ones;
}

/* spec 7.3 [C-01], [C-06] or [C-11]: the numbers of words; `at` is where the payload begins. */
static fedmrn_status fedmrn__check_counts(const fedmrn__blocks_in *in, const fedmrn_entry *e, uint64_t at)
{
    uint64_t blocks = fedmrn__blocks(in->elements), block, counts = at + (uint64_t)(in->counts - e->payload);
    uint64_t left = (uint64_t)(in->payload_end - in->next) - 4 * in->lanes * blocks;
    for (block = 0; block < in->counted; block++) {
        uint64_t words = 2 * fedmrn__count_at(in, block);
        if (words > left) return fedmrn__fail(FEDMRN_CODING, counts + in->count_size * block);
        left -= words;
    }
    if (e->coding == FEDMRN_CODING_RANS) return left ? fedmrn__fail(FEDMRN_CODING, counts) : fedmrn__ok();
    if (left % 2 || (e->coding == FEDMRN_CODING_RANS12 && left / 2 > 65535))
        return fedmrn__fail(FEDMRN_CODING, at + e->length);
    return fedmrn__ok();
}

/* spec 7.3 [C-02], [C-07] or [C-12] */
static fedmrn_status fedmrn__check_states(fedmrn__blocks_in in, const fedmrn_entry *e, uint64_t at)
{
    uint64_t blocks = fedmrn__blocks(in.elements), block;
    unsigned k;
    for (block = 0; block < blocks; block++) {
        for (k = 0; k < in.lanes; k++)
            if (fedmrn__u32(in.next + 4 * k) < 0x10000u)
                return fedmrn__fail(FEDMRN_CODING, at + (uint64_t)(in.next - e->payload) + 4 * k);
        fedmrn__skip_block(&in, block);
    }
    return fedmrn__ok();
}

/* spec 6.8, 6.11, 7.3 [C-01] to [C-04], [C-05] to [C-09] */
static fedmrn_status fedmrn__check_coded(fedmrn__mask mask, uint64_t at)
{
    fedmrn_status status;
    fedmrn__bits_in in;
    fedmrn__histogram h;
    fedmrn__model model = fedmrn__model_of(mask.entry->coding, mask.entry->type);
    unsigned k;
    memset(&in, 0, sizeof in);
    in.mask = mask;
    if (!fedmrn__begin_coded(&in)) return fedmrn__fail(FEDMRN_CODING, at);
    for (k = 0; k < model.buckets; k++)
        if (in.model.p[k] == 0) return fedmrn__fail(FEDMRN_CODING, at + k);
    status = fedmrn__check_counts(&in.blocks, mask.entry, at);
    if (!status.code) status = fedmrn__check_states(in.blocks, mask.entry, at);
    if (status.code) return status;
    h = fedmrn__count_mask(&in);
    if (in.blocks.wrong) return fedmrn__fail(FEDMRN_CODING, at);
    fedmrn__fit(&model, &h);
    for (k = 0; k < model.buckets; k++)
        if (in.model.p[k] != model.p[k]) return fedmrn__fail(FEDMRN_CODING, model.bits == 8 ? at + k : at);
    return fedmrn__ok();
}

/* spec 7.3 [F-28], [C-01] to [C-09] */
static fedmrn_status fedmrn__check_mask(fedmrn__mask mask, uint64_t at)
{
    const fedmrn_entry *e = mask.entry;
    if (fedmrn__is_coder(e->coding)) return fedmrn__check_coded(mask, at);
    if (!fedmrn__padding_is_zero(e->payload, mask.elements)) return fedmrn__fail(FEDMRN_PADDING, at + e->length - 1);
    return fedmrn__ok();
}

/* spec 6.14, 7.3 [C-10] to [C-14]; then *largest is the largest integer, without its sign. */
static fedmrn_status fedmrn__check_coded_integers(const fedmrn_entry *e, uint64_t elements, uint64_t at,
                                                  int32_t *largest)
{
    uint64_t counts[FEDMRN__SYMBOLS];
    uint16_t f[FEDMRN__SYMBOLS];
    fedmrn__integers_in in;
    fedmrn_status status;
    unsigned s;
    memset(&in, 0, sizeof in);
    in.entry = e;
    if (!fedmrn__begin_grid(&in, elements)) return fedmrn__fail(FEDMRN_CODING, at);
    status = fedmrn__check_counts(&in.blocks, e, at);
    if (!status.code) status = fedmrn__check_states(in.blocks, e, at);
    if (status.code) return status;
    *largest = fedmrn__count_symbols(&in, elements, counts);
    if (in.blocks.wrong) return fedmrn__fail(FEDMRN_CODING, at);
    fedmrn__fit_frequencies(counts, elements, f);
    for (s = 0; s < FEDMRN__SYMBOLS; s++)
        if (f[s] != (s <= in.last ? in.start[s + 1] - in.start[s] : 0)) return fedmrn__fail(FEDMRN_CODING, at);
    return fedmrn__ok();
}

/* spec 6.12, 7.3 [C-10] to [C-14], [F-32] */
static fedmrn_status fedmrn__check_grid(const fedmrn_entry *e, uint64_t elements, uint64_t at)
{
    int32_t largest = fedmrn__largest_integer(e->type), found = 0, z;
    uint64_t i;
    if (e->coding != FEDMRN_CODING_RAW) {
        fedmrn_status status = fedmrn__check_coded_integers(e, elements, at, &found);
        return !status.code && found > largest ? fedmrn__fail(FEDMRN_GRID, at) : status;
    }
    for (i = 0; i < elements; i++) {
        z = fedmrn__raw_integer(e->payload, i);
        if (z > largest || z < -largest) return fedmrn__fail(FEDMRN_GRID, at + 4 * i);
    }
    return fedmrn__ok();
}

/* spec 7.3 [F-28] to [F-30], [F-32], [C-01] to [C-14]: `at` is where the payload begins. */
static fedmrn_status fedmrn__check_payload(const fedmrn_tensor *t, const fedmrn_entry *e, uint64_t seed,
                                           uint64_t stream, uint64_t at)
{
    unsigned dtype = fedmrn__payload_dtype(t, e->coding), size = fedmrn__dtypes[dtype].size;
    size_t i;
    if (e->kind == FEDMRN_KIND_GRID) return fedmrn__check_grid(e, t->elements, at);
    if (e->kind != FEDMRN_KIND_DENSE) return fedmrn__check_mask(fedmrn__mask_of(e, t->elements, seed, stream), at);
    if (!fedmrn__dtypes[dtype].precision && dtype != FEDMRN_BOOL8) return fedmrn__ok();
    for (i = 0; i < (size_t)e->length; i += size) {
        if (dtype == FEDMRN_BOOL8) {
            if (e->payload[i] > 1) return fedmrn__fail(FEDMRN_BOOL, at + i);
        } else if (!fedmrn__finite(dtype, fedmrn__load(e->payload + i, size))) {
            return fedmrn__fail(FEDMRN_NON_FINITE, at + i);
        }
    }
    return fedmrn__ok();
}

static void fedmrn__begin(fedmrn_frame *frame, const uint8_t *bytes, size_t length)
{
    memset(frame, 0, sizeof *frame);
    frame->bytes = bytes;
    frame->length = length;
    frame->schema = NULL;
    frame->entries = NULL;
}

/* spec 7.2 */
fedmrn_memory fedmrn_frame_need(const uint8_t *bytes, size_t length, const fedmrn_demands *demands)
{
    fedmrn_memory memory = {NULL, NULL, 0, 0};
    fedmrn_frame frame;
    const uint8_t *schema = NULL;
    size_t count = demands->schema ? demands->schema->count : 0, size = 0;
    fedmrn__in in = fedmrn__from(bytes, FEDMRN__HEADER, length - FEDMRN__CHECKSUM);
    fedmrn__begin(&frame, bytes, length);
    if (fedmrn__check_header(&frame, demands).code) return memory;
    if (frame.flags & 1) {
        if (fedmrn__find_schema(&in, demands, &schema, &size).code) return memory;
        memory.tensor_capacity = fedmrn__tensors_need(schema, size, demands->max_tensors);
        if (!demands->schema) count = memory.tensor_capacity;
    }
    memory.entry_capacity = frame.tensor_count < count ? frame.tensor_count : count;
    return memory;
}

/* spec 7.3 */
fedmrn_status fedmrn_frame_read(fedmrn_frame *frame, const uint8_t *bytes, size_t length,
                                const fedmrn_demands *demands, const fedmrn_memory *memory)
{
    fedmrn__in in = fedmrn__from(bytes, FEDMRN__HEADER, length - FEDMRN__CHECKSUM);
    fedmrn_status status;
    uint32_t k;
    fedmrn__begin(frame, bytes, length);
    status = fedmrn__check_header(frame, demands);
    if (!status.code && frame->flags & 1) status = fedmrn__check_embedded(frame, &in, demands, memory);
    if (!status.code) status = fedmrn__check_agreement(frame, demands);
    if (status.code) return status;
    if (memory->entry_capacity < frame->tensor_count) return fedmrn__fail(FEDMRN_MEMORY, 0);
    frame->entries = memory->entries;
    status = fedmrn__check_whole(frame, &in, memory->entries);
    for (k = 0; k < frame->tensor_count && !status.code; k++)
        status = fedmrn__check_payload(&frame->schema->tensors[k], &frame->entries[k], frame->seed, k,
                                       (uint64_t)(frame->entries[k].payload - bytes));
    return status;
}

/* ---------------------------------------- 8 Aggregation ---------------------------------------- */

/* spec 8.2, 8.4: the cells of a tensor; at most 88 * 2^48. */
static uint64_t fedmrn__cells(const fedmrn_tensor *t)
{
    return t->role == FEDMRN_ROLE_MASKED ? t->elements : t->elements * fedmrn__dtypes[t->dtype].limbs;
}

fedmrn_code fedmrn_sum_need(const fedmrn_schema *schema, size_t *slots, size_t *cells)
{
    size_t left = SIZE_MAX / sizeof(int64_t);
    uint32_t k;
    for (k = 0; k < schema->count; k++) {
        uint64_t more = fedmrn__cells(&schema->tensors[k]);
        if (more > left) return FEDMRN_MEMORY;
        left -= (size_t)more;
    }
    *slots = schema->count;
    *cells = SIZE_MAX / sizeof(int64_t) - left;
    return FEDMRN_OK;
}

void fedmrn_sum_init(fedmrn_sum *sum, const fedmrn_schema *schema, uint64_t base_model, uint32_t round,
                     fedmrn_slot *slots, int64_t *cells)
{
    uint32_t k;
    size_t i, n;
    memset(sum, 0, sizeof *sum);
    sum->schema = schema;
    sum->slots = slots;
    sum->base_model = base_model;
    sum->round = round;
    for (k = 0; k < schema->count; k++, cells += n) {
        n = (size_t)fedmrn__cells(&schema->tensors[k]);
        slots[k].cells = cells;
        slots[k].scale_bits = 0;
        slots[k].distribution = 0;
        for (i = 0; i < n; i++) cells[i] = 0;
    }
}

/* spec 8.1 [A-01] */
static int fedmrn__weight_fits(const fedmrn_sum *sum, uint64_t weight)
{
    return weight >= 1 && weight <= FEDMRN__MAX_WEIGHT - sum->weight;
}

/* spec 8.1 [A-02]: masked tensor k has this noise, or no noise yet. */
static int fedmrn__same_noise(const fedmrn_sum *sum, uint32_t k, unsigned distribution, uint32_t scale_bits)
{
    return sum->frames == 0 ||
           (sum->slots[k].distribution == distribution && sum->slots[k].scale_bits == scale_bits);
}

static void fedmrn__set_noise(fedmrn_slot *slot, unsigned distribution, uint32_t scale_bits)
{
    slot->distribution = (uint8_t)distribution;
    slot->scale_bits = scale_bits;
}

/* spec 8.1 [A-02]: the distribution of a masked tensor's entry. */
static unsigned fedmrn__noise_of(const fedmrn_entry *e)
{
    return e->kind == FEDMRN_KIND_GRID ? FEDMRN__GRID : e->type;
}

/* spec 8.2: S(i) += w q(i) m(i) */
static void fedmrn__add_masked(int64_t *sums, const fedmrn_frame *frame, uint32_t tensor, int64_t weight)
{
    const fedmrn_entry *e = &frame->entries[tensor];
    size_t elements = (size_t)frame->schema->tensors[tensor].elements, done, n, i;
    fedmrn__bits_in in = fedmrn__bits_from_element(fedmrn__mask_of(e, elements, frame->seed, tensor), 0);
    int64_t zero = e->kind == FEDMRN_KIND_SIGNED ? -weight : 0;
    int32_t q[FEDMRN__CHUNK];
    uint8_t bits[FEDMRN__CHUNK];
    for (done = 0; done < elements; done += n) {
        n = fedmrn__next_bits(&in, elements - done, q, bits);
        for (i = 0; i < n; i++) sums[done + i] += (bits[i] ? weight : zero) * q[i];
    }
}

/* spec 8.4: an element is +mantissa or -mantissa, times 2^shift * quantum. */
typedef struct {
    uint64_t mantissa;
    unsigned shift;
    int negative;
} fedmrn__parts;

static fedmrn__parts fedmrn__split(unsigned dtype, uint64_t bits)
{
    const fedmrn__dtype *d = &fedmrn__dtypes[dtype];
    unsigned total = 8u * d->size, mantissa_bits = d->precision - 1u;
    uint64_t sign = (uint64_t)1 << (total - 1);
    fedmrn__parts parts;
    parts.negative = d->negative && (bits & sign) != 0;
    parts.shift = 0;
    if (d->precision) {
        uint64_t one = (uint64_t)1 << mantissa_bits;
        unsigned exponent = (unsigned)((bits & (sign - 1)) >> mantissa_bits);
        parts.mantissa = (bits & (one - 1)) | (exponent ? one : 0);
        parts.shift = exponent ? exponent - 1 : 0;
    } else {
        parts.mantissa = parts.negative ? (~bits & (sign - 1)) + 1 : bits;
    }
    return parts;
}

/* spec 8.4: adds the digits of M, times s w, to the limbs, which are `stride` cells apart. */
static void fedmrn__add_digits(int64_t *limb, size_t stride, fedmrn__parts parts, int64_t weight)
{
    unsigned offset = parts.shift % 24;
    uint64_t digit = parts.mantissa << offset & FEDMRN__DIGIT;
    uint64_t rest = parts.mantissa >> (24 - offset);
    int64_t factor = parts.negative ? -weight : weight;
    if (!parts.mantissa) return;
    for (limb += parts.shift / 24 * stride;; limb += stride) {
        *limb += factor * (int64_t)digit;
        if (!rest) return;
        digit = rest & FEDMRN__DIGIT;
        rest >>= 24;
    }
}

/* spec 8.4 */
static void fedmrn__add_dense(int64_t *limbs, const fedmrn_tensor *t, const fedmrn_entry *e, int64_t weight)
{
    size_t n = (size_t)t->elements, i;
    for (i = 0; i < n; i++)
        fedmrn__add_digits(limbs + i, n, fedmrn__split(t->dtype, fedmrn__element(t, e, i)), weight);
}

/* spec 8.2: S(i) += w z(i); spec 8.3: the values of a dense tensor are summed as its elements are. */
static void fedmrn__add_grid(int64_t *cells, const fedmrn_tensor *t, const fedmrn_entry *e, int64_t weight)
{
    size_t elements = (size_t)t->elements, done, n, i;
    fedmrn__integers_in in = fedmrn__integers_from(e, elements, 0);
    int32_t z[FEDMRN__CHUNK];
    for (done = 0; done < elements; done += n) {
        n = fedmrn__next_integers(&in, elements - done, z);
        for (i = 0; i < n; i++) {
            int64_t *cell = cells + done + i;
            uint64_t value;
            if (t->role == FEDMRN_ROLE_MASKED) {
                *cell += weight * z[i];
                continue;
            }
            value = fedmrn__grid_value(t->dtype, e->scale_bits, z[i]);
            fedmrn__add_digits(cell, elements, fedmrn__split(t->dtype, value), weight);
        }
    }
}

/* spec 8.1: the weight, the frame, the noise; only then is anything added [A-05]. */
fedmrn_status fedmrn_sum_add(fedmrn_sum *sum, const uint8_t *bytes, size_t length, uint64_t weight,
                             const fedmrn_demands *demands, const fedmrn_memory *memory)
{
    fedmrn_demands own = demands ? *demands : fedmrn_no_demands();
    fedmrn_status status;
    fedmrn_frame frame;
    uint32_t k;
    if (!fedmrn__weight_fits(sum, weight)) return fedmrn__fail(FEDMRN_AGGREGATE, 0);
    own.schema = sum->schema;
    own.wants_round = (own.round = sum->round) != 0;
    own.wants_base_model = (own.base_model = sum->base_model) != 0;
    status = fedmrn_frame_read(&frame, bytes, length, &own, memory);
    if (status.code) return status;
    for (k = 0; k < frame.tensor_count; k++) {
        const fedmrn_entry *e = &frame.entries[k];
        if (sum->schema->tensors[k].role == FEDMRN_ROLE_MASKED &&
            !fedmrn__same_noise(sum, k, fedmrn__noise_of(e), e->scale_bits))
            return fedmrn__fail(FEDMRN_AGGREGATE, 0);
    }
    for (k = 0; k < frame.tensor_count; k++) {
        const fedmrn_tensor *t = &sum->schema->tensors[k];
        const fedmrn_entry *e = &frame.entries[k];
        if (t->role == FEDMRN_ROLE_MASKED) fedmrn__set_noise(&sum->slots[k], fedmrn__noise_of(e), e->scale_bits);
        if (e->kind == FEDMRN_KIND_DENSE) fedmrn__add_dense(sum->slots[k].cells, t, e, (int64_t)weight);
        else if (e->kind == FEDMRN_KIND_GRID) fedmrn__add_grid(sum->slots[k].cells, t, e, (int64_t)weight);
        else fedmrn__add_masked(sum->slots[k].cells, &frame, k, (int64_t)weight);
    }
    sum->weight += weight;
    sum->frames++;
    return fedmrn__ok();
}

/* spec 8.2 [A-03] */
static uint32_t fedmrn__mean_masked(int64_t sum, uint64_t weight, float step)
{
    double mean = (double)sum / (double)weight;
    mean = mean * (double)step;
    return fedmrn_bits((float)mean);
}

/* spec 8.3: only here are carries propagated. With them, |t| <= weight * 2^24 <= 2^63 - 2^24. */
#define FEDMRN__MOST_DIGITS (88 + 2)

static int64_t fedmrn__carry(const int64_t *limb, size_t stride, unsigned limbs, int64_t sign, uint32_t *digits)
{
    int64_t carry = 0;
    unsigned l;
    for (l = 0; l < limbs; l++, limb += stride) {
        int64_t t = sign * *limb + carry;
        digits[l] = (uint32_t)((uint64_t)t & FEDMRN__DIGIT);
        carry = (t - (int64_t)digits[l]) / 0x1000000;
    }
    return carry;
}

/* spec 8.3: the magnitude of a sum of limbs, in limbs + 2 digits. Returns whether the sum is negative. */
static int fedmrn__magnitude(const int64_t *limb, size_t stride, unsigned limbs, uint32_t *digits)
{
    int64_t carry = fedmrn__carry(limb, stride, limbs, 1, digits);
    int negative = carry < 0;
    if (negative) carry = fedmrn__carry(limb, stride, limbs, -1, digits);
    digits[limbs] = (uint32_t)((uint64_t)carry & FEDMRN__DIGIT);
    digits[limbs + 1] = (uint32_t)((uint64_t)carry >> 24);
    return negative;
}

/* spec 8.3: long division in place. Returns the remainder. */
static uint64_t fedmrn__divide(uint32_t *digits, unsigned count, uint64_t divisor)
{
    uint64_t remainder = 0;
    while (count--) {
        uint64_t t = remainder << 24 | digits[count]; /* below 2^63 */
        digits[count] = (uint32_t)(t / divisor);
        remainder = t % divisor;
    }
    return remainder;
}

/* The number with these digits, divided by 2^shift and rounded down; the lowest 64 bits. Digits beyond the last are
 * 0. */
static uint64_t fedmrn__bits_from(const uint32_t *digits, unsigned count, unsigned shift)
{
    uint64_t bits = 0;
    unsigned l = shift / 24, offset = shift % 24, k;
    for (k = 0; k < 4 && l + k < count; k++) {
        uint64_t digit = digits[l + k];
        if (k == 0) bits = digit >> offset;
        else if (24 * k - offset < 64) bits |= digit << (24 * k - offset);
    }
    return bits;
}

static int fedmrn__any_below(const uint32_t *digits, unsigned shift)
{
    unsigned l;
    for (l = 0; l < shift / 24; l++)
        if (digits[l]) return 1;
    return (digits[l] & ((1u << shift % 24) - 1)) != 0;
}

/* spec 8.3: compares the dropped part (the lowest `shift` bits and the remainder) with a half: below 0, 0, above 0. */
static int fedmrn__against_half(const uint32_t *digits, unsigned count, unsigned shift, uint64_t remainder,
                                uint64_t weight)
{
    if (shift == 0) return 2 * remainder < weight ? -1 : 2 * remainder > weight;
    if (!(fedmrn__bits_from(digits, count, shift - 1) & 1)) return -1;
    return remainder != 0 || fedmrn__any_below(digits, shift - 1);
}

static unsigned fedmrn__length_of(const uint32_t *digits, unsigned count)
{
    while (count && !digits[count - 1]) count--;
    return count ? 24 * (count - 1) + fedmrn__bit_length(digits[count - 1]) : 0;
}

/* spec 8.3 [A-04] [A-07]: to the nearest float. Its bits are mantissa + shift * 2^(precision - 1). This is
 * also right for subnormal numbers and for a mantissa that is rounded up to a power of two. */
static fedmrn_code fedmrn__round_float(const fedmrn__dtype *d, const uint32_t *digits, unsigned count,
                                       uint64_t remainder, uint64_t weight, int negative, uint64_t *bits)
{
    unsigned length = fedmrn__length_of(digits, count), total = 8u * d->size;
    unsigned shift = length > d->precision ? length - d->precision : 0;
    uint64_t mantissa = fedmrn__bits_from(digits, count, shift);
    uint64_t infinity = ((uint64_t)1 << (total - 1)) - ((uint64_t)1 << (d->precision - 1));
    int half = fedmrn__against_half(digits, count, shift, remainder, weight);
    if (half > 0 || (half == 0 && mantissa & 1)) mantissa++;
    *bits = mantissa + ((uint64_t)shift << (d->precision - 1));
    if (*bits >= infinity) return FEDMRN_SUMS;
    if (*bits && negative) *bits |= (uint64_t)1 << (total - 1);
    return FEDMRN_OK;
}

/* spec 8.3 [A-04] [A-07]: to the nearest integer; `largest` is the largest magnitude that its sign allows. */
static fedmrn_code fedmrn__round_integer(const uint32_t *digits, unsigned count, uint64_t remainder, uint64_t weight,
                                         int negative, uint64_t largest, uint64_t *bits)
{
    uint64_t whole = fedmrn__bits_from(digits, count, 0);
    int half = fedmrn__against_half(digits, count, 0, remainder, weight);
    int up = half > 0 || (half == 0 && whole & 1);
    if (fedmrn__length_of(digits, count) > 64 || whole > largest || (up && whole == largest)) return FEDMRN_SUMS;
    whole += (uint64_t)up;
    *bits = negative ? 0 - whole : whole;
    return FEDMRN_OK;
}

/* spec 5.3: the largest magnitude of an integer dtype, on the given side of 0. */
static uint64_t fedmrn__largest(unsigned dtype, int negative)
{
    unsigned total = 8u * fedmrn__dtypes[dtype].size;
    uint64_t half = (uint64_t)1 << (total - 1);
    if (dtype == FEDMRN_BOOL8) return negative ? 0 : 1;
    if (!fedmrn__dtypes[dtype].negative) return negative ? 0 : half - 1 + half;
    return negative ? half : half - 1;
}

/* spec 8.3 [A-04] */
static fedmrn_code fedmrn__mean_dense(unsigned dtype, const int64_t *limb, size_t stride, uint64_t weight,
                                      uint64_t *bits)
{
    const fedmrn__dtype *d = &fedmrn__dtypes[dtype];
    uint32_t digits[FEDMRN__MOST_DIGITS];
    unsigned count = d->limbs + 2u;
    int negative = fedmrn__magnitude(limb, stride, d->limbs, digits);
    uint64_t remainder = fedmrn__divide(digits, count, weight);
    if (d->precision) return fedmrn__round_float(d, digits, count, remainder, weight, negative, bits);
    return fedmrn__round_integer(digits, count, remainder, weight, negative, fedmrn__largest(dtype, negative), bits);
}

/* spec 8.2, 8.3 */
fedmrn_code fedmrn_sum_mean(const fedmrn_sum *sum, uint32_t tensor, uint64_t start, size_t count, void *out)
{
    const fedmrn_tensor *t;
    const fedmrn_slot *slot;
    uint8_t *p = (uint8_t *)out;
    size_t i;
    if (sum->frames == 0) return FEDMRN_AGGREGATE;
    if (tensor >= sum->schema->count) return FEDMRN_ARGUMENT;
    t = &sum->schema->tensors[tensor];
    slot = &sum->slots[tensor];
    if (start > t->elements || count > t->elements - start) return FEDMRN_ARGUMENT;
    for (i = (size_t)start; i < (size_t)start + count; i++) {
        uint64_t bits = 0;
        fedmrn_code code = FEDMRN_OK;
        if (t->role == FEDMRN_ROLE_MASKED)
            bits = fedmrn__mean_masked(slot->cells[i], sum->weight, fedmrn__step(slot->distribution, slot->scale_bits));
        else
            code = fedmrn__mean_dense(t->dtype, slot->cells + i, (size_t)t->elements, sum->weight, &bits);
        if (code) return code;
        p = fedmrn__put_native(p, bits, fedmrn__dtypes[t->dtype].size);
    }
    return FEDMRN_OK;
}

/* spec 8.5: a row is present if one of its limbs is not 0. */
static int fedmrn__row_present(const int64_t *row, uint64_t n)
{
    size_t i;
    for (i = 0; i < (size_t)n; i++)
        if (row[i]) return 1;
    return 0;
}

static uint32_t fedmrn__rows_present(const fedmrn_tensor *t, const int64_t *limbs)
{
    uint32_t rows = 0;
    unsigned l;
    for (l = 0; l < fedmrn__dtypes[t->dtype].limbs; l++)
        rows += (uint32_t)fedmrn__row_present(limbs + l * (size_t)t->elements, t->elements);
    return rows;
}

/* spec 8.5: the bytes of a dense tensor; at most 88 * (8 * 2^48 + 4) + 4. */
static uint64_t fedmrn__rows_bytes(const fedmrn_tensor *t, const int64_t *limbs)
{
    return 4 + fedmrn__rows_present(t, limbs) * (4 + 8 * t->elements);
}

/* spec 8.5 */
fedmrn_code fedmrn_sum_size(const fedmrn_sum *sum, size_t *size)
{
    size_t left = SIZE_MAX - FEDMRN__PARTIAL_HEADER - FEDMRN__CHECKSUM;
    uint32_t k;
    if (sum->frames == 0) return FEDMRN_AGGREGATE;
    for (k = 0; k < sum->schema->count; k++) {
        const fedmrn_tensor *t = &sum->schema->tensors[k];
        uint64_t more = 8 + 8 * t->elements;
        if (t->role == FEDMRN_ROLE_DENSE) more = fedmrn__rows_bytes(t, sum->slots[k].cells);
        if (more > left) return FEDMRN_MEMORY;
        left -= (size_t)more;
    }
    *size = SIZE_MAX - left;
    return FEDMRN_OK;
}

/* spec 8.5: whether a masked tensor has distribution 4, and so the minor version. */
static unsigned fedmrn__partial_minor(const fedmrn_sum *sum)
{
    uint32_t k;
    for (k = 0; k < sum->schema->count; k++)
        if (sum->schema->tensors[k].role == FEDMRN_ROLE_MASKED && sum->slots[k].distribution == FEDMRN__GRID) return 1;
    return 0;
}

/* spec 8.5 */
static uint8_t *fedmrn__put_partial_header(uint8_t *p, const fedmrn_sum *sum)
{
    p = fedmrn__put(p, 0x53524D46u, 4); /* "FMRS" */
    p = fedmrn__put(p, 1, 1);
    p = fedmrn__put(p, fedmrn__partial_minor(sum), 1);
    p = fedmrn__put(p, 0, 2);
    p = fedmrn__put(p, sum->weight, 8);
    p = fedmrn__put(p, sum->base_model, 8);
    p = fedmrn__put(p, sum->round, 4);
    p = fedmrn__put(p, sum->schema->count, 4);
    p = fedmrn__put_bytes(p, sum->schema->digest, 16);
    return fedmrn__put(p, sum->frames, 8);
}

static uint8_t *fedmrn__put_row(uint8_t *p, const int64_t *row, uint64_t n)
{
    size_t i;
    for (i = 0; i < (size_t)n; i++) p = fedmrn__put(p, (uint64_t)row[i], 8);
    return p;
}

static uint8_t *fedmrn__put_rows(uint8_t *p, const fedmrn_tensor *t, const int64_t *limbs)
{
    unsigned l;
    p = fedmrn__put(p, fedmrn__rows_present(t, limbs), 4);
    for (l = 0; l < fedmrn__dtypes[t->dtype].limbs; l++) {
        const int64_t *row = limbs + l * (size_t)t->elements;
        if (!fedmrn__row_present(row, t->elements)) continue;
        p = fedmrn__put(p, l, 4);
        p = fedmrn__put_row(p, row, t->elements);
    }
    return p;
}

fedmrn_code fedmrn_sum_write(const fedmrn_sum *sum, uint8_t *out, size_t capacity)
{
    size_t size = 0;
    fedmrn_code code = fedmrn_sum_size(sum, &size);
    uint8_t *p = out;
    uint32_t k;
    if (code) return code;
    if (capacity < size) return FEDMRN_MEMORY;
    p = fedmrn__put_partial_header(p, sum);
    for (k = 0; k < sum->schema->count; k++) {
        const fedmrn_tensor *t = &sum->schema->tensors[k];
        const fedmrn_slot *slot = &sum->slots[k];
        if (t->role == FEDMRN_ROLE_DENSE) {
            p = fedmrn__put_rows(p, t, slot->cells);
        } else {
            p = fedmrn__put(p, slot->distribution, 4); /* and 3 bytes of 0 */
            p = fedmrn__put(p, slot->scale_bits, 4);
            p = fedmrn__put_row(p, slot->cells, t->elements);
        }
    }
    fedmrn__put(p, fedmrn__crc32(out, size - FEDMRN__CHECKSUM), FEDMRN__CHECKSUM);
    return FEDMRN_OK;
}

/* spec 8.5 [P-01] to [P-08] */
static fedmrn_status fedmrn__check_partial_header(fedmrn_partial *partial)
{
    const uint8_t *p = partial->bytes;
    if (partial->length < FEDMRN__PARTIAL_HEADER + FEDMRN__CHECKSUM)
        return fedmrn__fail(FEDMRN_TRUNCATED, partial->length);
    partial->weight = fedmrn__u64(p + 8);
    partial->base_model = fedmrn__u64(p + 16);
    partial->round = fedmrn__u32(p + 24);
    partial->frames = fedmrn__u64(p + 48);
    if (memcmp(p, "FMRS", 4) != 0) return fedmrn__fail(FEDMRN_MAGIC, 0);
    if (p[4] != 1 || p[5] > 1) return fedmrn__fail(FEDMRN_VERSION, 4);
    if (fedmrn__u16(p + 6)) return fedmrn__fail(FEDMRN_RESERVED, 6);
    if (partial->weight < 1 || partial->weight > FEDMRN__MAX_WEIGHT) return fedmrn__fail(FEDMRN_WEIGHT, 8);
    if (partial->frames < 1 || partial->frames > partial->weight) return fedmrn__fail(FEDMRN_FRAMES, 48);
    if (memcmp(p + 32, partial->schema->digest, 16) != 0) return fedmrn__fail(FEDMRN_SCHEMA_MISMATCH, 32);
    if (fedmrn__u32(p + 28) != partial->schema->count) return fedmrn__fail(FEDMRN_TENSOR_COUNT, 28);
    return fedmrn__ok();
}

/* spec 8.5 [P-01] [P-09] to [P-11]; `grids` is set if the tensor has distribution 4. */
static fedmrn_status fedmrn__check_partial_masked(fedmrn__in *in, uint64_t elements, unsigned minor, unsigned *grids)
{
    size_t at = in->at;
    const uint8_t *p;
    fedmrn_code code;
    if (!fedmrn__has(in, 8)) return fedmrn__fail(FEDMRN_TRUNCATED, at);
    p = fedmrn__take(in, 8);
    if (p[0] == FEDMRN__GRID && minor >= 1) {
        code = fedmrn__check_step(FEDMRN_FLOAT32, fedmrn__u32(p + 4));
        *grids = 1;
    } else {
        code = fedmrn_check_scale(p[0], fedmrn__u32(p + 4));
    }
    if (code == FEDMRN_UNKNOWN_DISTRIBUTION) return fedmrn__fail(code, at);
    if (p[1] || p[2] || p[3]) return fedmrn__fail(FEDMRN_RESERVED, at + 1);
    if (code) return fedmrn__fail(code, at + 4);
    if (!fedmrn__has(in, 8 * elements)) return fedmrn__fail(FEDMRN_TRUNCATED, in->at);
    fedmrn__take(in, (size_t)(8 * elements));
    return fedmrn__ok();
}

/* spec 8.5 [P-01] [P-12], 8.6 [T-01] [T-16] */
static fedmrn_status fedmrn__check_partial_dense(fedmrn__in *in, const fedmrn_tensor *t)
{
    uint32_t rows, next = 0;
    if (!fedmrn__has(in, 4)) return fedmrn__fail(FEDMRN_TRUNCATED, in->at);
    for (rows = fedmrn__u32(fedmrn__take(in, 4)); rows; rows--) {
        uint32_t limb;
        if (!fedmrn__has(in, 4)) return fedmrn__fail(FEDMRN_TRUNCATED, in->at);
        limb = fedmrn__u32(fedmrn__take(in, 4));
        if (limb < next || limb >= fedmrn__dtypes[t->dtype].limbs) return fedmrn__fail(FEDMRN_ROWS, in->at - 4);
        next = limb + 1;
        if (!fedmrn__has(in, 8 * t->elements)) return fedmrn__fail(FEDMRN_TRUNCATED, in->at);
        fedmrn__take(in, (size_t)(8 * t->elements));
    }
    return fedmrn__ok();
}

/* spec 8.5 [P-15]: `elements` sums of at most `bound` in magnitude, not all 0 if they are a row. */
static fedmrn_status fedmrn__check_sums(fedmrn__in *in, uint64_t elements, uint64_t bound, int is_row)
{
    size_t at = in->at, i;
    int any = 0;
    const uint8_t *p = fedmrn__take(in, (size_t)(8 * elements));
    for (i = 0; i < (size_t)elements; i++) {
        int64_t value = fedmrn__i64(p + 8 * i);
        if (value > (int64_t)bound || value < -(int64_t)bound) return fedmrn__fail(FEDMRN_SUMS, at + 8 * i);
        any |= value != 0;
    }
    return is_row && !any ? fedmrn__fail(FEDMRN_SUMS, at) : fedmrn__ok();
}

/* spec 8.5 [P-15] */
static uint64_t fedmrn__largest_draw(unsigned distribution)
{
    if (distribution == FEDMRN_GAUSSIAN) return fedmrn__gaussian[0];
    return distribution == FEDMRN_BERNOULLI ? 1 : FEDMRN__DIGIT;
}

/* spec 8.5 [P-15], 8.6 [T-20]: the rows of a dense tensor, of a sum of digits with this sum of weights. */
static fedmrn_status fedmrn__check_rows(fedmrn__in *in, uint64_t elements, uint64_t weight)
{
    fedmrn_status status = fedmrn__ok();
    uint32_t rows;
    for (rows = fedmrn__u32(fedmrn__take(in, 4)); rows && !status.code; rows--) {
        fedmrn__take(in, 4);
        status = fedmrn__check_sums(in, elements, weight * FEDMRN__DIGIT, 1);
    }
    return status;
}

static fedmrn_status fedmrn__check_tensor_sums(fedmrn__in *in, const fedmrn_tensor *t, uint64_t weight)
{
    if (t->role == FEDMRN_ROLE_MASKED) {
        unsigned distribution = *fedmrn__take(in, 8);
        return fedmrn__check_sums(in, t->elements, weight * fedmrn__largest_draw(distribution), 0);
    }
    return fedmrn__check_rows(in, t->elements, weight);
}

/* spec 8.5 [P-01] to [P-16] */
fedmrn_status fedmrn_partial_read(fedmrn_partial *partial, const uint8_t *bytes, size_t length,
                                  const fedmrn_schema *schema)
{
    size_t end = length - FEDMRN__CHECKSUM;
    fedmrn__in in = fedmrn__from(bytes, FEDMRN__PARTIAL_HEADER, end);
    fedmrn_status status;
    unsigned grids = 0;
    uint32_t k;
    partial->bytes = bytes;
    partial->length = length;
    partial->schema = schema;
    status = fedmrn__check_partial_header(partial);
    for (k = 0; !status.code && k < schema->count; k++) {
        const fedmrn_tensor *t = &schema->tensors[k];
        status = t->role == FEDMRN_ROLE_MASKED ? fedmrn__check_partial_masked(&in, t->elements, bytes[5], &grids)
                                               : fedmrn__check_partial_dense(&in, t);
    }
    if (status.code) return status;
    if (bytes[5] != grids) return fedmrn__fail(FEDMRN_MINOR, 5);
    if (in.at != end) return fedmrn__fail(FEDMRN_TRAILING, in.at);
    if (fedmrn__crc32(bytes, end) != fedmrn__u32(bytes + end)) return fedmrn__fail(FEDMRN_CHECKSUM, end);
    in = fedmrn__from(bytes, FEDMRN__PARTIAL_HEADER, end);
    for (k = 0; !status.code && k < schema->count; k++)
        status = fedmrn__check_tensor_sums(&in, &schema->tensors[k], partial->weight);
    return status;
}

/* spec 8.5, 8.6: adds sums that were checked before, times `weight`; if `cells` is NULL they are only skipped. */
static void fedmrn__add_row(fedmrn__in *in, int64_t *cells, uint64_t elements, int64_t weight)
{
    const uint8_t *p = fedmrn__take(in, (size_t)(8 * elements));
    size_t i;
    for (i = 0; cells && i < (size_t)elements; i++) cells[i] += weight * fedmrn__i64(p + 8 * i);
}

static void fedmrn__merge_dense(fedmrn__in *in, const fedmrn_tensor *t, int64_t *cells, int64_t weight)
{
    uint32_t rows;
    for (rows = fedmrn__u32(fedmrn__take(in, 4)); rows; rows--) {
        size_t limb = fedmrn__u32(fedmrn__take(in, 4));
        fedmrn__add_row(in, cells ? cells + limb * (size_t)t->elements : NULL, t->elements, weight);
    }
}

/* spec 8.5 [A-06]: in a first pass (add = 0) the noise is compared, in a second the sums are added. */
static fedmrn_code fedmrn__merge_pass(fedmrn_sum *sum, const fedmrn_partial *partial, int add)
{
    fedmrn__in in = fedmrn__from(partial->bytes, FEDMRN__PARTIAL_HEADER, partial->length - FEDMRN__CHECKSUM);
    uint32_t k;
    for (k = 0; k < sum->schema->count; k++) {
        const fedmrn_tensor *t = &sum->schema->tensors[k];
        fedmrn_slot *slot = &sum->slots[k];
        if (t->role == FEDMRN_ROLE_DENSE) {
            fedmrn__merge_dense(&in, t, add ? slot->cells : NULL, 1);
        } else {
            const uint8_t *p = fedmrn__take(&in, 8);
            if (!fedmrn__same_noise(sum, k, p[0], fedmrn__u32(p + 4))) return FEDMRN_AGGREGATE;
            if (add) fedmrn__set_noise(slot, p[0], fedmrn__u32(p + 4));
            fedmrn__add_row(&in, add ? slot->cells : NULL, t->elements, 1);
        }
    }
    return FEDMRN_OK;
}

/* spec 8.5 [A-05] [A-06] */
fedmrn_code fedmrn_sum_merge(fedmrn_sum *sum, const fedmrn_partial *partial)
{
    if (memcmp(sum->schema->digest, partial->schema->digest, 16) != 0) return FEDMRN_AGGREGATE;
    if (sum->base_model != partial->base_model || sum->round != partial->round) return FEDMRN_AGGREGATE;
    if (!fedmrn__weight_fits(sum, partial->weight)) return FEDMRN_AGGREGATE;
    if (fedmrn__merge_pass(sum, partial, 0)) return FEDMRN_AGGREGATE;
    fedmrn__merge_pass(sum, partial, 1);
    sum->weight += partial->weight;
    sum->frames += partial->frames;
    return FEDMRN_OK;
}

/* ---------------------------------------- 8.6 Tallies ---------------------------------------- */

fedmrn_code fedmrn_tally_need(const fedmrn_schema *schema, size_t *slots, size_t *counts, size_t *limbs)
{
    size_t counts_left = SIZE_MAX / sizeof(uint32_t), limbs_left = SIZE_MAX / sizeof(int64_t), *left;
    uint32_t k;
    for (k = 0; k < schema->count; k++) {
        uint64_t more = fedmrn__cells(&schema->tensors[k]);
        left = schema->tensors[k].role == FEDMRN_ROLE_MASKED ? &counts_left : &limbs_left;
        if (more > *left) return FEDMRN_MEMORY;
        *left -= (size_t)more;
    }
    *slots = schema->count;
    *counts = SIZE_MAX / sizeof(uint32_t) - counts_left;
    *limbs = SIZE_MAX / sizeof(int64_t) - limbs_left;
    return FEDMRN_OK;
}

void fedmrn_tally_init(fedmrn_tally *tally, const fedmrn_schema *schema, uint64_t weight, uint64_t base_model,
                       uint32_t round, fedmrn_tally_slot *slots, uint32_t *counts, int64_t *limbs)
{
    uint32_t k;
    size_t i, n;
    memset(tally, 0, sizeof *tally);
    tally->schema = schema;
    tally->slots = slots;
    tally->weight = weight;
    tally->base_model = base_model;
    tally->round = round;
    for (k = 0; k < schema->count; k++) {
        int masked = schema->tensors[k].role == FEDMRN_ROLE_MASKED;
        n = (size_t)fedmrn__cells(&schema->tensors[k]);
        memset(&slots[k], 0, sizeof slots[k]);
        slots[k].counts = masked ? counts : NULL;
        slots[k].limbs = masked ? NULL : limbs;
        for (i = 0; i < n && masked; i++) counts[i] = 0;
        for (i = 0; i < n && !masked; i++) limbs[i] = 0;
        if (masked) counts += n;
        else limbs += n;
    }
}

/* spec 8.6 [A-08] [A-09] [T-06]: w and n, of which w is not 0, are within the bounds; n is positive. */
static int fedmrn__tally_fits(uint64_t weight, uint64_t frames)
{
    return weight >= 1 && frames <= FEDMRN__MOST_FRAMES && weight <= FEDMRN__MAX_WEIGHT / frames;
}

/* spec 8.6: masked tensor k has this kind and noise, or no frame has told them yet. */
static int fedmrn__same_mask(const fedmrn_tally *tally, uint32_t k, const fedmrn_entry *e)
{
    const fedmrn_tally_slot *slot = &tally->slots[k];
    return tally->frames == 0 ||
           (slot->kind == e->kind && slot->distribution == e->type && slot->scale_bits == e->scale_bits);
}

static void fedmrn__set_mask(fedmrn_tally_slot *slot, const fedmrn_entry *e)
{
    slot->kind = e->kind;
    slot->distribution = e->type;
    slot->scale_bits = e->scale_bits;
}

/* spec 8.6 [A-08]: what a frame must have in common with those before it; masks are possible, grids are not. */
static int fedmrn__tally_takes(const fedmrn_tally *tally, const fedmrn_frame *frame)
{
    uint32_t k;
    if (tally->frames && frame->seed != tally->seed) return 0;
    if (tally->added && (frame->base_model != tally->frame_base_model || frame->round != tally->frame_round)) return 0;
    for (k = 0; k < frame->tensor_count; k++) {
        if (tally->schema->tensors[k].role == FEDMRN_ROLE_DENSE) continue;
        if (!fedmrn__is_mask(frame->entries[k].kind) || !fedmrn__same_mask(tally, k, &frame->entries[k])) return 0;
    }
    return 1;
}

/* spec 8.6: c(i) += bit i */
static void fedmrn__add_bits(uint32_t *counts, const fedmrn_frame *frame, uint32_t tensor)
{
    const fedmrn_entry *e = &frame->entries[tensor];
    size_t elements = (size_t)frame->schema->tensors[tensor].elements, done, n, i;
    fedmrn__bits_in in;
    int32_t q[FEDMRN__CHUNK];
    uint8_t bits[FEDMRN__CHUNK];
    if (e->coding == FEDMRN_CODING_RAW) { /* of which no noise is needed */
        for (i = 0; i < elements; i++) counts[i] += fedmrn__mask_bit(e->payload, i);
        return;
    }
    in = fedmrn__bits_from_element(fedmrn__mask_of(e, elements, frame->seed, tensor), 0);
    for (done = 0; done < elements; done += n) {
        n = fedmrn__next_bits(&in, elements - done, q, bits);
        for (i = 0; i < n; i++) counts[done + i] += bits[i];
    }
}

/* spec 8.6 [A-08]: the numbers, the frame, what frames have in common; only then is anything added. */
fedmrn_status fedmrn_tally_add(fedmrn_tally *tally, const uint8_t *bytes, size_t length,
                               const fedmrn_demands *demands, const fedmrn_memory *memory)
{
    fedmrn_demands own = demands ? *demands : fedmrn_no_demands();
    fedmrn_status status;
    fedmrn_frame frame;
    uint32_t k;
    if (!fedmrn__tally_fits(tally->weight, (uint64_t)tally->frames + 1)) return fedmrn__fail(FEDMRN_AGGREGATE, 0);
    own.schema = tally->schema;
    own.wants_round = (own.round = tally->round) != 0;
    own.wants_base_model = (own.base_model = tally->base_model) != 0;
    status = fedmrn_frame_read(&frame, bytes, length, &own, memory);
    if (status.code) return status;
    if (!fedmrn__tally_takes(tally, &frame)) return fedmrn__fail(FEDMRN_AGGREGATE, 0);
    for (k = 0; k < frame.tensor_count; k++) {
        const fedmrn_tensor *t = &tally->schema->tensors[k];
        const fedmrn_entry *e = &frame.entries[k];
        fedmrn_tally_slot *slot = &tally->slots[k];
        if (t->role == FEDMRN_ROLE_MASKED) {
            fedmrn__set_mask(slot, e);
            fedmrn__add_bits(slot->counts, &frame, k);
        } else if (e->kind == FEDMRN_KIND_GRID) {
            fedmrn__add_grid(slot->limbs, t, e, 1);
        } else {
            fedmrn__add_dense(slot->limbs, t, e, 1);
        }
    }
    tally->seed = frame.seed;
    tally->frame_base_model = frame.base_model;
    tally->frame_round = frame.round;
    tally->added = 1;
    tally->frames++;
    return fedmrn__ok();
}

/* spec 8.6: ceil(N b / 8); N b is at most 24 * 2^48. */
static uint64_t fedmrn__counts_bytes(uint64_t elements, uint32_t frames)
{
    return fedmrn__mask_bytes(elements * fedmrn__bit_length(frames));
}

static void fedmrn__put_counts(uint8_t *p, const uint32_t *counts, size_t elements, unsigned bits)
{
    uint64_t held = 0;
    unsigned have = 0;
    size_t i;
    for (i = 0; i < elements; i++) {
        held |= (uint64_t)counts[i] << have;
        for (have += bits; have >= 8; have -= 8, held >>= 8) *p++ = (uint8_t)held;
    }
    if (have) *p = (uint8_t)held;
}

static fedmrn__integers fedmrn__centred(const fedmrn_tally *tally, uint32_t k)
{
    fedmrn__integers from = {NULL, tally->slots[k].counts, (int32_t)(tally->frames / 2)};
    return from;
}

/* spec 8.6 [E-05]: a masked tensor as it will be written, without its payload. */
static fedmrn_entry fedmrn__counts_entry(const fedmrn_tally *tally, uint32_t k, unsigned coding)
{
    const fedmrn_tally_slot *slot = &tally->slots[k];
    uint64_t elements = tally->schema->tensors[k].elements, length;
    fedmrn_entry e;
    memset(&e, 0, sizeof e);
    e.kind = slot->kind;
    e.type = slot->distribution;
    e.scale_bits = slot->scale_bits;
    e.coding = FEDMRN_CODING_RAW;
    e.length = fedmrn__counts_bytes(elements, tally->frames);
    if (coding == FEDMRN_CODING_RAW || fedmrn__least_coded(coding, elements) >= e.length) return e;
    length = fedmrn__encode_integers(fedmrn__centred(tally, k), elements, NULL, 0);
    if (length >= e.length) return e;
    e.length = length;
    e.coding = FEDMRN_CODING_RANS14;
    return e;
}

fedmrn_code fedmrn_tally_size(const fedmrn_tally *tally, unsigned coding, size_t *size)
{
    size_t left = SIZE_MAX - FEDMRN__TALLY_HEADER - FEDMRN__CHECKSUM;
    uint32_t k;
    if (coding != FEDMRN_CODING_RAW && coding != FEDMRN_CODING_RANS14) return FEDMRN_UNKNOWN_CODING;
    if (tally->frames == 0) return FEDMRN_AGGREGATE;
    for (k = 0; k < tally->schema->count; k++) {
        const fedmrn_tensor *t = &tally->schema->tensors[k];
        uint64_t more = t->role == FEDMRN_ROLE_MASKED ? 16 + fedmrn__counts_entry(tally, k, coding).length
                                                      : fedmrn__rows_bytes(t, tally->slots[k].limbs);
        if (more > left) return FEDMRN_MEMORY;
        left -= (size_t)more;
    }
    *size = SIZE_MAX - left;
    return FEDMRN_OK;
}

/* spec 8.6 */
static uint8_t *fedmrn__put_tally_header(uint8_t *p, const fedmrn_tally *tally)
{
    p = fedmrn__put(p, 0x54524D46u, 4); /* "FMRT" */
    p = fedmrn__put(p, 1, 1);
    p = fedmrn__put(p, 0, 1);
    p = fedmrn__put(p, 0, 2);
    p = fedmrn__put(p, tally->seed, 8);
    p = fedmrn__put(p, tally->base_model, 8);
    p = fedmrn__put(p, tally->round, 4);
    p = fedmrn__put(p, tally->schema->count, 4);
    p = fedmrn__put_bytes(p, tally->schema->digest, 16);
    p = fedmrn__put(p, tally->weight, 8);
    return fedmrn__put(p, tally->frames, 4);
}

static uint8_t *fedmrn__put_counted(uint8_t *p, const fedmrn_tally *tally, uint32_t k, unsigned coding)
{
    uint64_t elements = tally->schema->tensors[k].elements;
    fedmrn_entry e = fedmrn__counts_entry(tally, k, coding);
    p = fedmrn__put(p, e.kind, 1);
    p = fedmrn__put(p, e.type, 1);
    p = fedmrn__put(p, e.coding, 2); /* and reserved, 0 */
    p = fedmrn__put(p, e.scale_bits, 4);
    p = fedmrn__put(p, e.length, 8);
    if (e.coding == FEDMRN_CODING_RAW)
        fedmrn__put_counts(p, tally->slots[k].counts, (size_t)elements, fedmrn__bit_length(tally->frames));
    else
        fedmrn__encode_integers(fedmrn__centred(tally, k), elements, p, e.length);
    return p + (size_t)e.length;
}

fedmrn_code fedmrn_tally_write(const fedmrn_tally *tally, unsigned coding, uint8_t *out, size_t capacity)
{
    size_t size = 0;
    fedmrn_code code = fedmrn_tally_size(tally, coding, &size);
    uint8_t *p = out;
    uint32_t k;
    if (code) return code;
    if (capacity < size) return FEDMRN_MEMORY;
    p = fedmrn__put_tally_header(p, tally);
    for (k = 0; k < tally->schema->count; k++) {
        const fedmrn_tensor *t = &tally->schema->tensors[k];
        if (t->role == FEDMRN_ROLE_MASKED) p = fedmrn__put_counted(p, tally, k, coding);
        else p = fedmrn__put_rows(p, t, tally->slots[k].limbs);
    }
    fedmrn__put(p, fedmrn__crc32(out, size - FEDMRN__CHECKSUM), FEDMRN__CHECKSUM);
    return FEDMRN_OK;
}

/* The counts of a masked tensor, element by element from the first on. */
typedef struct {
    fedmrn__integers_in integers; /* of raw counts, only the next element is used */
    unsigned bits;
    int32_t middle; /* spec 8.6: n div 2 */
} fedmrn__counts_in;

static fedmrn__counts_in fedmrn__counts_from(const fedmrn_entry *e, uint64_t elements, uint32_t frames)
{
    fedmrn__counts_in in;
    in.integers = fedmrn__integers_from(e, elements, 0);
    in.bits = fedmrn__bit_length(frames);
    in.middle = (int32_t)(frames / 2);
    return in;
}

/* spec 8.6: at most 24 bits, in at most 4 bytes. */
static int32_t fedmrn__packed_count(const uint8_t *p, uint64_t bit, unsigned bits)
{
    unsigned shift = (unsigned)(bit % 8), k;
    uint32_t value = 0;
    for (p += (size_t)(bit / 8), k = 0; 8 * k < shift + bits; k++) value |= (uint32_t)p[k] << (8 * k);
    return (int32_t)(value >> shift & (((uint32_t)1 << bits) - 1));
}

/* The next counts; those of a payload in coding 5 may be negative before [T-20] is checked. Returns how many. */
static size_t fedmrn__next_counts(fedmrn__counts_in *in, uint64_t most, int32_t *counts)
{
    const fedmrn_entry *e = in->integers.entry;
    fedmrn__blocks_in *blocks = &in->integers.blocks;
    size_t n, i;
    if (e->coding == FEDMRN_CODING_RAW) {
        n = fedmrn__next_count(blocks, most);
        for (i = 0; i < n; i++) counts[i] = fedmrn__packed_count(e->payload, (blocks->at + i) * in->bits, in->bits);
        blocks->at += n;
        return n;
    }
    n = fedmrn__next_integers(&in->integers, most, counts);
    for (i = 0; i < n; i++) counts[i] += in->middle;
    return n;
}

/* spec 8.6 [T-01] to [T-09] */
static fedmrn_status fedmrn__check_tally_header(fedmrn_tally_view *view, const uint64_t *seed)
{
    const uint8_t *p = view->bytes;
    if (view->length < FEDMRN__TALLY_HEADER + FEDMRN__CHECKSUM) return fedmrn__fail(FEDMRN_TRUNCATED, view->length);
    view->seed = fedmrn__u64(p + 8);
    view->base_model = fedmrn__u64(p + 16);
    view->round = fedmrn__u32(p + 24);
    view->weight = fedmrn__u64(p + 48);
    view->frames = fedmrn__u32(p + 56);
    if (memcmp(p, "FMRT", 4) != 0) return fedmrn__fail(FEDMRN_MAGIC, 0);
    if (p[4] != 1 || p[5] != 0) return fedmrn__fail(FEDMRN_VERSION, 4);
    if (fedmrn__u16(p + 6)) return fedmrn__fail(FEDMRN_RESERVED, 6);
    if (view->frames < 1 || view->frames > FEDMRN__MOST_FRAMES) return fedmrn__fail(FEDMRN_FRAMES, 56);
    if (!fedmrn__tally_fits(view->weight, view->frames)) return fedmrn__fail(FEDMRN_WEIGHT, 48);
    if (memcmp(p + 32, view->schema->digest, 16) != 0) return fedmrn__fail(FEDMRN_SCHEMA_MISMATCH, 32);
    if (fedmrn__u32(p + 28) != view->schema->count) return fedmrn__fail(FEDMRN_TENSOR_COUNT, 28);
    if (seed && view->seed != *seed) return fedmrn__fail(FEDMRN_SEED, 8);
    return fedmrn__ok();
}

/* spec 8.6: a masked tensor whose first 16 bytes are there; its payload comes next. */
static fedmrn_entry fedmrn__take_entry(fedmrn__in *in)
{
    const uint8_t *p = fedmrn__take(in, 16);
    fedmrn_entry e;
    e.kind = p[0];
    e.type = p[1];
    e.coding = p[2];
    e.scale_bits = fedmrn__u32(p + 4);
    e.length = fedmrn__u64(p + 8);
    e.payload = p + 16;
    return e;
}

/* spec 8.6: a masked tensor that was checked before. */
static fedmrn_entry fedmrn__take_counted(fedmrn__in *in)
{
    fedmrn_entry e = fedmrn__take_entry(in);
    fedmrn__take(in, (size_t)e.length);
    return e;
}

/* spec 8.6 [T-15] */
static int fedmrn__counts_length_allowed(const fedmrn_entry *e, uint64_t elements, uint32_t frames)
{
    uint64_t raw = fedmrn__counts_bytes(elements, frames);
    if (e->coding == FEDMRN_CODING_RAW) return e->length == raw;
    return e->length < raw && e->length >= fedmrn__least_coded(e->coding, elements);
}

/* spec 8.6 [T-01] [T-10] to [T-15] */
static fedmrn_status fedmrn__check_counted(fedmrn__in *in, uint64_t elements, uint32_t frames)
{
    size_t at = in->at;
    fedmrn_entry e;
    fedmrn_code scale;
    if (!fedmrn__has(in, 16)) return fedmrn__fail(FEDMRN_TRUNCATED, at);
    e = fedmrn__take_entry(in);
    scale = fedmrn_check_scale(e.type, e.scale_bits);
    if (!fedmrn__is_mask(e.kind)) return fedmrn__fail(FEDMRN_UNKNOWN_KIND, at);
    if (scale == FEDMRN_UNKNOWN_DISTRIBUTION) return fedmrn__fail(scale, at + 1);
    if (e.coding != FEDMRN_CODING_RAW && e.coding != FEDMRN_CODING_RANS14)
        return fedmrn__fail(FEDMRN_UNKNOWN_CODING, at + 2);
    if (in->bytes[at + 3]) return fedmrn__fail(FEDMRN_RESERVED, at + 3);
    if (scale) return fedmrn__fail(scale, at + 4);
    if (!fedmrn__counts_length_allowed(&e, elements, frames)) return fedmrn__fail(FEDMRN_PAYLOAD_LENGTH, at + 8);
    if (!fedmrn__has(in, e.length)) return fedmrn__fail(FEDMRN_TRUNCATED, in->at);
    fedmrn__take(in, (size_t)e.length);
    return fedmrn__ok();
}

/* spec 8.6 [T-19], [C-10] to [C-14], [T-20]: `at` is where the payload begins. */
static fedmrn_status fedmrn__check_counts_of(const fedmrn_entry *e, uint64_t elements, uint32_t frames, uint64_t at)
{
    fedmrn_status status = fedmrn__ok();
    fedmrn__counts_in in;
    int32_t counts[FEDMRN__CHUNK], largest;
    uint64_t done;
    size_t n, i;
    if (e->coding != FEDMRN_CODING_RAW) status = fedmrn__check_coded_integers(e, elements, at, &largest);
    else if (!fedmrn__padding_is_zero(e->payload, elements * fedmrn__bit_length(frames)))
        status = fedmrn__fail(FEDMRN_PADDING, at + e->length - 1);
    if (status.code) return status;
    in = fedmrn__counts_from(e, elements, frames);
    for (done = 0; done < elements; done += n) {
        n = fedmrn__next_counts(&in, elements - done, counts);
        for (i = 0; i < n; i++)
            if (counts[i] < 0 || counts[i] > (int32_t)frames)
                return fedmrn__fail(FEDMRN_SUMS, e->coding == FEDMRN_CODING_RAW ? at + (done + i) * in.bits / 8 : at);
    }
    return status;
}

/* spec 8.6 [T-01] to [T-20] */
fedmrn_status fedmrn_tally_read(fedmrn_tally_view *view, const uint8_t *bytes, size_t length,
                                const fedmrn_schema *schema, const uint64_t *seed)
{
    size_t end = length - FEDMRN__CHECKSUM;
    fedmrn__in in = fedmrn__from(bytes, FEDMRN__TALLY_HEADER, end);
    fedmrn_status status;
    uint32_t k;
    view->bytes = bytes;
    view->length = length;
    view->schema = schema;
    status = fedmrn__check_tally_header(view, seed);
    for (k = 0; !status.code && k < schema->count; k++) {
        const fedmrn_tensor *t = &schema->tensors[k];
        status = t->role == FEDMRN_ROLE_MASKED ? fedmrn__check_counted(&in, t->elements, view->frames)
                                               : fedmrn__check_partial_dense(&in, t);
    }
    if (status.code) return status;
    if (in.at != end) return fedmrn__fail(FEDMRN_TRAILING, in.at);
    if (fedmrn__crc32(bytes, end) != fedmrn__u32(bytes + end)) return fedmrn__fail(FEDMRN_CHECKSUM, end);
    in = fedmrn__from(bytes, FEDMRN__TALLY_HEADER, end);
    for (k = 0; !status.code && k < schema->count; k++) {
        const fedmrn_tensor *t = &schema->tensors[k];
        fedmrn_entry e;
        if (t->role == FEDMRN_ROLE_DENSE) {
            status = fedmrn__check_rows(&in, t->elements, view->frames);
            continue;
        }
        e = fedmrn__take_counted(&in);
        status = fedmrn__check_counts_of(&e, t->elements, view->frames, (uint64_t)(e.payload - bytes));
    }
    return status;
}

/* spec 8.6: c(i) += those of a view. */
static void fedmrn__merge_counts(uint32_t *counts, const fedmrn_entry *e, uint64_t elements, uint32_t frames)
{
    fedmrn__counts_in in = fedmrn__counts_from(e, elements, frames);
    int32_t more[FEDMRN__CHUNK];
    size_t done, n, i;
    for (done = 0; done < (size_t)elements; done += n) {
        n = fedmrn__next_counts(&in, elements - done, more);
        for (i = 0; i < n; i++) counts[done + i] += (uint32_t)more[i];
    }
}

/* spec 8.6 [A-09]: in a first pass (add = 0) kinds and noise are compared, in a second the counts are added. */
static fedmrn_code fedmrn__tally_pass(fedmrn_tally *tally, const fedmrn_tally_view *view, int add)
{
    fedmrn__in in = fedmrn__from(view->bytes, FEDMRN__TALLY_HEADER, view->length - FEDMRN__CHECKSUM);
    uint32_t k;
    for (k = 0; k < tally->schema->count; k++) {
        const fedmrn_tensor *t = &tally->schema->tensors[k];
        fedmrn_tally_slot *slot = &tally->slots[k];
        fedmrn_entry e;
        if (t->role == FEDMRN_ROLE_DENSE) {
            fedmrn__merge_dense(&in, t, add ? slot->limbs : NULL, 1);
            continue;
        }
        e = fedmrn__take_counted(&in);
        if (!fedmrn__same_mask(tally, k, &e)) return FEDMRN_AGGREGATE;
        if (!add) continue;
        fedmrn__set_mask(slot, &e);
        fedmrn__merge_counts(slot->counts, &e, t->elements, view->frames);
    }
    return FEDMRN_OK;
}

/* spec 8.6 [A-09] */
fedmrn_code fedmrn_tally_merge(fedmrn_tally *tally, const fedmrn_tally_view *view)
{
    if (memcmp(tally->schema->digest, view->schema->digest, 16) != 0) return FEDMRN_AGGREGATE;
    if (tally->weight != view->weight || (tally->frames && tally->seed != view->seed)) return FEDMRN_AGGREGATE;
    if (tally->base_model != view->base_model || tally->round != view->round) return FEDMRN_AGGREGATE;
    if (!fedmrn__tally_fits(tally->weight, (uint64_t)tally->frames + view->frames)) return FEDMRN_AGGREGATE;
    if (fedmrn__tally_pass(tally, view, 0)) return FEDMRN_AGGREGATE;
    fedmrn__tally_pass(tally, view, 1);
    tally->seed = view->seed;
    tally->frames += view->frames;
    return FEDMRN_OK;
}

/* spec 8.6 [A-10]: S(i) += w q(i) c(i), or w q(i) (2 c(i) - n); below 2^63. */
static void fedmrn__add_counted(int64_t *sums, const fedmrn_tally_view *view, uint32_t tensor, const fedmrn_entry *e)
{
    uint64_t elements = view->schema->tensors[tensor].elements;
    fedmrn__counts_in in = fedmrn__counts_from(e, elements, view->frames);
    int64_t weight = (int64_t)view->weight, frames = view->frames;
    int32_t counts[FEDMRN__CHUNK], q[FEDMRN__CHUNK];
    size_t done, n, i;
    for (done = 0; done < (size_t)elements; done += n) {
        n = fedmrn__next_counts(&in, elements - done, counts);
        fedmrn__draws(e->type, view->seed, tensor, done, n, q);
        for (i = 0; i < n; i++) {
            int64_t kept = counts[i];
            sums[done + i] += weight * (e->kind == FEDMRN_KIND_SIGNED ? 2 * kept - frames : kept) * q[i];
        }
    }
}

/* spec 8.6 [A-10]: in a first pass (add = 0) the noise is compared, in a second the sums are added. */
static fedmrn_code fedmrn__sum_tally_pass(fedmrn_sum *sum, const fedmrn_tally_view *view, int add)
{
    fedmrn__in in = fedmrn__from(view->bytes, FEDMRN__TALLY_HEADER, view->length - FEDMRN__CHECKSUM);
    uint32_t k;
    for (k = 0; k < sum->schema->count; k++) {
        const fedmrn_tensor *t = &sum->schema->tensors[k];
        fedmrn_slot *slot = &sum->slots[k];
        fedmrn_entry e;
        if (t->role == FEDMRN_ROLE_DENSE) {
            fedmrn__merge_dense(&in, t, add ? slot->cells : NULL, (int64_t)view->weight);
            continue;
        }
        e = fedmrn__take_counted(&in);
        if (!fedmrn__same_noise(sum, k, e.type, e.scale_bits)) return FEDMRN_AGGREGATE;
        if (!add) continue;
        fedmrn__set_noise(slot, e.type, e.scale_bits);
        fedmrn__add_counted(slot->cells, view, k, &e);
    }
    return FEDMRN_OK;
}

/* spec 8.6 [A-10] */
fedmrn_code fedmrn_sum_add_tally(fedmrn_sum *sum, const fedmrn_tally_view *view)
{
    uint64_t weight = view->weight * view->frames; /* at most 2^39 - 1 [T-06] */
    if (memcmp(sum->schema->digest, view->schema->digest, 16) != 0) return FEDMRN_AGGREGATE;
    if (sum->base_model != view->base_model || sum->round != view->round) return FEDMRN_AGGREGATE;
    if (!fedmrn__weight_fits(sum, weight)) return FEDMRN_AGGREGATE;
    if (fedmrn__sum_tally_pass(sum, view, 0)) return FEDMRN_AGGREGATE;
    fedmrn__sum_tally_pass(sum, view, 1);
    sum->weight += weight;
    sum->frames += view->frames;
    return FEDMRN_OK;
}

/* ---------------------------------------- 1.6, 1.7 Models ---------------------------------------- */

static uint64_t fedmrn__load_native(const uint8_t *p, unsigned size)
{
    uint8_t v8;
    uint16_t v16;
    uint32_t v32;
    uint64_t v64;
    if (size == 1) return memcpy(&v8, p, 1), v8;
    if (size == 2) return memcpy(&v16, p, 2), v16;
    if (size == 4) return memcpy(&v32, p, 4), v32;
    return memcpy(&v64, p, 8), v64;
}

/* The float of a float16 or bfloat16. */
static float fedmrn__float_of_half(unsigned dtype, uint32_t half)
{
    if (dtype == FEDMRN_BFLOAT16) return fedmrn_float(half << 16);
    if ((half >> 10 & 31) < 31) return fedmrn_float(fedmrn__widen_float16(half));
    return fedmrn_float((half & 0x8000u) << 16 | 0x7F800000u | (half & 0x3FFu) << 13); /* infinity, NaN */
}

/* spec 1.6: an f32 to the nearest float16 or bfloat16, which may be infinite; a NaN stays one. */
static uint32_t fedmrn__half_of_float(unsigned dtype, float value)
{
    unsigned coding = dtype == FEDMRN_FLOAT16 ? FEDMRN_CODING_FLOAT16 : FEDMRN_CODING_BFLOAT16;
    uint32_t bits = fedmrn_bits(value), infinity = dtype == FEDMRN_FLOAT16 ? 0x7C00u : 0x7F80u, half;
    uint32_t sign = bits >> 16 & 0x8000u;
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return dtype == FEDMRN_FLOAT16 ? 0x7E00u : 0x7FC0u;
    return fedmrn__narrow(coding, bits, &half) ? sign | infinity : half;
}

/* spec 1.6: base + update, as bits. For 16 bits, rounding the f32 sum gives the same as rounding the exact one: its 24
 * bits are two more than twice those of a float16, and more than that for a bfloat16. */
static uint64_t fedmrn__new_value(unsigned dtype, uint64_t base, uint64_t update)
{
    float sum;
    double a, b;
    switch (dtype) {
    case FEDMRN_FLOAT32:
        sum = (float)(fedmrn_float((uint32_t)base) + fedmrn_float((uint32_t)update));
        return fedmrn_bits(sum);
    case FEDMRN_FLOAT64:
        memcpy(&a, &base, sizeof a);
        memcpy(&b, &update, sizeof b);
        a = a + b;
        memcpy(&base, &a, sizeof a);
        return base;
    case FEDMRN_FLOAT16:
    case FEDMRN_BFLOAT16:
        sum = (float)(fedmrn__float_of_half(dtype, (uint32_t)base) + fedmrn__float_of_half(dtype, (uint32_t)update));
        return fedmrn__half_of_float(dtype, sum);
    case FEDMRN_BOOL8:
        return base ^ update;
    default:
        return base + update; /* of which the dtype keeps the lowest bits */
    }
}

/* spec 1.6 */
fedmrn_code fedmrn_apply(unsigned dtype, size_t count, const void *update, void *model)
{
    const uint8_t *from = (const uint8_t *)update;
    uint8_t *to = (uint8_t *)model;
    unsigned size = fedmrn_dtype_size(dtype);
    if (!size) return FEDMRN_UNKNOWN_DTYPE;
    for (; count; count--, from += size) {
        uint64_t base = fedmrn__load_native(to, size);
        to = fedmrn__put_native(to, fedmrn__new_value(dtype, base, fedmrn__load_native(from, size)), size);
    }
    return FEDMRN_OK;
}

/* spec 1.7: one tensor as 5.2 writes it, but without its role, and its elements. */
static void fedmrn__hash_tensor(fedmrn__sha256 *sha, const fedmrn_tensor *t, unsigned dtype, const uint8_t *p)
{
    uint8_t bytes[8 * 64], *end = bytes; /* 64 elements at a time */
    unsigned size = fedmrn_dtype_size(dtype);
    uint64_t i;
    fedmrn__put(bytes, t->name_length, 2);
    fedmrn__sha256_add(sha, bytes, 2);
    fedmrn__sha256_add(sha, t->name, t->name_length);
    fedmrn__put(fedmrn__put(bytes, dtype, 1), t->rank, 1);
    fedmrn__sha256_add(sha, bytes, 2);
    fedmrn__sha256_add(sha, t->shape, 8u * t->rank);
    for (i = 0; i < t->elements; i++, p += size) {
        end = fedmrn__put(end, fedmrn__load_native(p, size), size);
        if (i % 64 != 63 && i + 1 != t->elements) continue;
        fedmrn__sha256_add(sha, bytes, (size_t)(end - bytes));
        end = bytes;
    }
}

/* spec 1.7 */
fedmrn_code fedmrn_model_id(const fedmrn_schema *schema, const uint8_t *dtypes, const void *const *arrays,
                            uint64_t *id)
{
    fedmrn__sha256 sha = fedmrn__sha256_begin();
    uint8_t digest[16];
    uint32_t k;
    for (k = 0; k < schema->count; k++) {
        unsigned dtype = dtypes ? dtypes[k] : schema->tensors[k].dtype;
        if (!fedmrn__dtype_known(dtype)) return FEDMRN_UNKNOWN_DTYPE;
        fedmrn__hash_tensor(&sha, &schema->tensors[k], dtype, (const uint8_t *)arrays[k]);
    }
    fedmrn__sha256_end(&sha, digest);
    *id = fedmrn__u64(digest);
    if (!*id) *id = 1;
    return FEDMRN_OK;
}

#endif /* FEDMRN_IMPLEMENTATION */
