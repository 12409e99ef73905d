/* ranges SCHEMA FRAME: whether fedmrn_frame_decode gives any range of a tensor as it gives the whole. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FEDMRN_IMPLEMENTATION
#include "fedmrn.h"

static uint8_t *read_file(const char *path, size_t *length)
{
    FILE *file = fopen(path, "rb");
    uint8_t *bytes = malloc(1 << 22);
    if (!file || !bytes) exit(3);
    *length = fread(bytes, 1, 1 << 22, file);
    fclose(file);
    return bytes;
}

int main(int argc, char **argv)
{
    const uint64_t starts[] = {0, 1, 255, 256, 65535, 65536, 65537, 100000, 131071, 131072, 131073};
    const size_t counts[] = {0, 1, 2, 255, 257, 65536, 70000};
    size_t schema_length, length;
    if (argc != 3) return 3;
    uint8_t *schema_bytes = read_file(argv[1], &schema_length), *bytes = read_file(argv[2], &length);
    fedmrn_tensor tensors[8];
    fedmrn_entry entries[8];
    fedmrn_schema schema;
    fedmrn_frame frame;
    fedmrn_demands demands = fedmrn_no_demands();
    fedmrn_memory memory = {tensors, entries, 8, 8};
    if (fedmrn_schema_read(&schema, schema_bytes, schema_length, tensors, 8).code) return 3;
    demands.schema = &schema;
    if (fedmrn_frame_read(&frame, bytes, length, &demands, &memory).code) return 3;
    for (uint32_t k = 0; k < schema.count; k++) {
        size_t n = (size_t)schema.tensors[k].elements, size = fedmrn_dtype_size(schema.tensors[k].dtype), ranges = 0;
        uint8_t *whole = malloc(n * size), *part = malloc(n * size);
        if (!whole || !part || fedmrn_frame_decode(&frame, k, 0, n, whole)) return 3;
        for (size_t i = 0; i < sizeof starts / sizeof *starts; i++)
            for (size_t j = 0; j <= sizeof counts / sizeof *counts; j++) {
                size_t rest = starts[i] > n ? 0 : n - (size_t)starts[i];
                size_t count = j < sizeof counts / sizeof *counts ? counts[j] : rest; /* the last: up to the end */
                fedmrn_code code = fedmrn_frame_decode(&frame, k, starts[i], count, part);
                if (starts[i] > n || count > rest) {
                    if (code != FEDMRN_ARGUMENT) return 2;
                    continue;
                }
                if (code || memcmp(part, whole + starts[i] * size, count * size) != 0) return 2;
                ranges++;
            }
        printf("tensor %u, coding %u: %u ranges\n", k, frame.entries[k].coding, (unsigned)ranges);
        free(whole);
        free(part);
    }
    free(schema_bytes);
    free(bytes);
    return 0;
}
