/* example FRAME - decode a frame that embeds its schema, and print the first elements of its float32 tensors.
 *
 *     cc -std=c99 -ffp-contract=off -O2 -o example example.c
 */
#include <stdio.h>
#include <stdlib.h>

#define FEDMRN_IMPLEMENTATION
#include "fedmrn.h"

int main(int argc, char **argv)
{
    fedmrn_demands demands = fedmrn_no_demands(); /* demands.schema: the server's own, if there is one */
    const size_t most = (size_t)1 << 28;
    uint8_t *bytes = calloc(most, 1);
    FILE *file = argc > 1 ? fopen(argv[1], "rb") : NULL;
    if (!bytes || !file) return 1;
    size_t length = fread(bytes, 1, most, file);

    fedmrn_memory memory = fedmrn_frame_need(bytes, length, &demands);
    memory.tensors = malloc((memory.tensor_capacity + 1) * sizeof *memory.tensors);
    memory.entries = malloc((memory.entry_capacity + 1) * sizeof *memory.entries);
    if (!memory.tensors || !memory.entries) return 1;

    fedmrn_frame frame;
    fedmrn_status status = fedmrn_frame_read(&frame, bytes, length, &demands, &memory);
    if (status.code) {
        fprintf(stderr, "%s at byte %llu\n", fedmrn_code_text(status.code), (unsigned long long)status.offset);
        return 2;
    }
    for (uint32_t k = 0; k < frame.schema->count; k++) {
        const fedmrn_tensor *tensor = &frame.schema->tensors[k];
        float values[4] = {0};
        size_t count = tensor->elements < 4 ? (size_t)tensor->elements : 4;
        if (tensor->dtype != FEDMRN_FLOAT32 || fedmrn_frame_decode(&frame, k, 0, count, values)) continue;
        printf("%.*s:", (int)tensor->name_length, (const char *)tensor->name);
        for (size_t i = 0; i < count; i++) printf(" %.9g", (double)values[i]);
        printf(tensor->elements > count ? " ...\n" : "\n");
    }
    return 0;
}
