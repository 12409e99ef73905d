/* follow SCHEMA MODEL FRAME... - add a server's frames to a model, and print the id of the model after each of them.
 *
 *     cc -std=c99 -ffp-contract=off -O2 -o follow follow.c
 *
 * SCHEMA holds the bytes of the schema (5.1). MODEL holds the elements of all tensors, in the schema's order and dtypes,
 * little-endian; it is overwritten, unless a frame is refused. A frame's base_model must be the id of the model, or 0:
 * then the frame is an update to a model of zeros (6.12).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FEDMRN_IMPLEMENTATION
#include "fedmrn.h"

#define STEP 65536u /* elements at a time: FEDMRN_BLOCK */

static void stop(const char *what, const char *why)
{
    fprintf(stderr, "follow: %s: %s\n", what, why);
    exit(2);
}

static void *memory_for(size_t size)
{
    void *memory = malloc(size + 1);
    if (!memory) stop("memory", "not enough");
    return memory;
}

static uint8_t *read_file(const char *path, size_t *length)
{
    FILE *file = fopen(path, "rb");
    uint8_t *bytes;
    long end;
    if (!file || fseek(file, 0, SEEK_END) || (end = ftell(file)) < 0 || fseek(file, 0, SEEK_SET))
        stop(path, "unreadable");
    *length = (size_t)end;
    bytes = memory_for(*length);
    if (fread(bytes, 1, *length, file) != *length) stop(path, "unreadable");
    fclose(file);
    return bytes;
}

/* Converts elements between little-endian and this machine's byte order. */
static void turn(uint8_t *p, size_t size, size_t count)
{
    const uint16_t one = 1;
    if (*(const uint8_t *)&one) return;
    for (; count--; p += size)
        for (size_t k = 0; k < size / 2; k++) {
            uint8_t byte = p[k];
            p[k] = p[size - 1 - k];
            p[size - 1 - k] = byte;
        }
}

/* The tensors of the model, which are in the file's bytes. */
static void **find_arrays(const fedmrn_schema *schema, uint8_t *bytes, size_t length)
{
    void **arrays = memory_for(schema->count * sizeof *arrays);
    for (uint32_t k = 0; k < schema->count; k++) {
        size_t size = fedmrn_dtype_size(schema->tensors[k].dtype);
        if (schema->tensors[k].elements > length / size) stop("MODEL", "shorter than the schema's tensors");
        size_t count = (size_t)schema->tensors[k].elements;
        arrays[k] = bytes;
        bytes += size * count;
        length -= size * count;
    }
    if (length) stop("MODEL", "longer than the schema's tensors");
    return arrays;
}

static uint64_t id_of(const fedmrn_schema *schema, void *const *arrays)
{
    uint64_t id = 0;
    fedmrn_model_id(schema, NULL, (const void *const *)arrays, &id);
    return id;
}

static void add_frame(const fedmrn_schema *schema, const char *path, uint8_t *model, size_t model_length, void **arrays)
{
    fedmrn_demands demands = fedmrn_no_demands();
    size_t length;
    uint8_t *bytes = read_file(path, &length);
    demands.schema = schema;
    fedmrn_memory memory = fedmrn_frame_need(bytes, length, &demands);
    memory.tensors = memory_for(memory.tensor_capacity * sizeof *memory.tensors);
    memory.entries = memory_for(memory.entry_capacity * sizeof *memory.entries);
    fedmrn_frame frame;
    fedmrn_status status = fedmrn_frame_read(&frame, bytes, length, &demands, &memory);
    if (status.code) stop(path, fedmrn_code_text(status.code));
    if (frame.base_model == 0) memset(model, 0, model_length);
    else if (frame.base_model != id_of(schema, arrays)) stop(path, fedmrn_code_text(FEDMRN_BASE_MODEL));

    uint8_t *update = memory_for(STEP * 8); /* enough for every dtype */
    for (uint32_t k = 0; k < schema->count; k++) {
        const fedmrn_tensor *tensor = &schema->tensors[k];
        uint8_t *array = arrays[k];
        for (uint64_t at = 0; at < tensor->elements; at += STEP) {
            size_t count = tensor->elements - at < STEP ? (size_t)(tensor->elements - at) : STEP;
            fedmrn_frame_decode(&frame, k, at, count, update);
            fedmrn_apply(tensor->dtype, count, update, array + (size_t)at * fedmrn_dtype_size(tensor->dtype));
        }
    }
    free(update);
    free(memory.tensors);
    free(memory.entries);
    free(bytes);
}

static void turn_all(const fedmrn_schema *schema, void **arrays)
{
    for (uint32_t k = 0; k < schema->count; k++)
        turn(arrays[k], fedmrn_dtype_size(schema->tensors[k].dtype), (size_t)schema->tensors[k].elements);
}

int main(int argc, char **argv)
{
    if (argc < 3) stop("arguments", "expected SCHEMA MODEL FRAME...");
    size_t schema_length, model_length;
    uint8_t *schema_bytes = read_file(argv[1], &schema_length), *model = read_file(argv[2], &model_length);
    size_t need = fedmrn_schema_need(schema_bytes, schema_length);
    fedmrn_tensor *tensors = memory_for(need * sizeof *tensors);
    fedmrn_schema schema;
    fedmrn_status status = fedmrn_schema_read(&schema, schema_bytes, schema_length, tensors, need);
    if (status.code) stop(argv[1], fedmrn_code_text(status.code));
    void **arrays = find_arrays(&schema, model, model_length);

    turn_all(&schema, arrays);
    for (int k = 3; k < argc; k++) {
        add_frame(&schema, argv[k], model, model_length, arrays);
        printf("%016llx\n", (unsigned long long)id_of(&schema, arrays));
    }
    turn_all(&schema, arrays);

    FILE *file = fopen(argv[2], "wb");
    if (!file || fwrite(model, 1, model_length, file) != model_length || fclose(file)) stop(argv[2], "not writable");
    free(arrays);
    free(tensors);
    free(model);
    free(schema_bytes);
    return 0;
}
