/* SPDX-License-Identifier: Apache-2.0
 *
 * litert_run: a .tflite file through LiteRT's C API on the CPU, see runner.c.
 *
 * The declarations restate the public C ABI of LiteRT 2 (opaque handles); built against libLiteRt.so alone.
 */
#include "runner.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef void *Handle;
typedef int Status;

Status LiteRtCreateEnvironment(int, const void *, Handle *);
Status LiteRtCreateModelFromFile(Handle, const char *, Handle *);
Status LiteRtCreateOptions(Handle *);
Status LiteRtSetOptionsHardwareAccelerators(Handle, int);
Status LiteRtCreateOpaqueOptions(const char *, void *, void (*)(void *), Handle *);
Status LiteRtAddOpaqueOptions(Handle, Handle);
Status LiteRtCreateCompiledModel(Handle, Handle, Handle, Handle *);
Status LiteRtGetModelSignature(Handle, size_t, Handle *);
Status LiteRtGetNumSignatureInputs(Handle, size_t *);
Status LiteRtGetNumSignatureOutputs(Handle, size_t *);
Status LiteRtGetSignatureInputTensorByIndex(Handle, size_t, Handle *);
Status LiteRtGetSignatureOutputTensorByIndex(Handle, size_t, Handle *);
Status LiteRtGetRankedTensorType(Handle, void *);
Status LiteRtGetCompiledModelInputBufferRequirements(Handle, size_t, size_t, Handle *);
Status LiteRtGetCompiledModelOutputBufferRequirements(Handle, size_t, size_t, Handle *);
Status LiteRtCreateManagedTensorBufferFromRequirements(Handle, const void *, Handle, Handle *);
Status LiteRtRunCompiledModel(Handle, size_t, size_t, Handle *, size_t, Handle *);
Status LiteRtLockTensorBuffer(Handle, void **, int);
Status LiteRtUnlockTensorBuffer(Handle);
Status LiteRtGetTensorBufferSize(Handle, size_t *);
Status LiteRtGetTensorBufferPackedSize(Handle, size_t *);
Status LiteRtCompiledModelGetProfiler(Handle, Handle *);
Status LiteRtStartProfiler(Handle);
Status LiteRtStopProfiler(Handle);
Status LiteRtGetNumProfilerEvents(Handle, int *);

typedef struct {
    const char *tag;
    int type;
    uint64_t start_us, elapsed_us;
    size_t memory[6];
    uint64_t node, graph;
    int source;
} Event;

Status LiteRtGetProfilerEvents(Handle, int, Event *);

enum { ACCELERATOR_CPU = 1, LOCK_READ = 0, LOCK_WRITE = 1, TENSOR_TYPE_BYTES = 512 };
enum { BY_INTERPRETER = 1 << 1, BY_DELEGATE = 1 << 3 }; /* types of profiled events */
enum { INT32 = 2, INT64 = 4, BOOL = 6 }; /* LiteRtElementType */

#define CHECK(call)                                                                                                    \
    do {                                                                                                               \
        Status status_ = (call);                                                                                       \
        if (status_)                                                                                                   \
            refuse("LiteRT refused %s (status %d)", #call, status_);                                                   \
    } while (0)

static struct {
    Handle environment, compiled, profiler, buffers[2][MAX_TENSORS]; /* inputs, outputs */
    size_t count[2];
} net;

static void fill_buffer(Handle buffer, const void *type)
{
    int element = *(const int *)type; /* a tensor type begins with its element's */
    size_t width = element == INT64 ? 8 : element == INT32 ? 4 : element == BOOL ? 1 : 0, size;
    void *memory;
    CHECK(LiteRtGetTensorBufferSize(buffer, &size));
    CHECK(LiteRtLockTensorBuffer(buffer, &memory, LOCK_WRITE));
    fill(memory, size, width);
    CHECK(LiteRtUnlockTensorBuffer(buffer));
}

static void create_buffers(Handle signature)
{
    char type[TENSOR_TYPE_BYTES];
    Handle tensor, needs;
    for (size_t i = 0; i < net.count[INPUT]; i++) {
        Handle *buffer = &net.buffers[INPUT][i];
        CHECK(LiteRtGetSignatureInputTensorByIndex(signature, i, &tensor));
        CHECK(LiteRtGetRankedTensorType(tensor, type));
        CHECK(LiteRtGetCompiledModelInputBufferRequirements(net.compiled, 0, i, &needs));
        CHECK(LiteRtCreateManagedTensorBufferFromRequirements(net.environment, type, needs, buffer));
        fill_buffer(*buffer, type);
    }
    for (size_t i = 0; i < net.count[OUTPUT]; i++) {
        Handle *buffer = &net.buffers[OUTPUT][i];
        CHECK(LiteRtGetSignatureOutputTensorByIndex(signature, i, &tensor));
        CHECK(LiteRtGetRankedTensorType(tensor, type));
        CHECK(LiteRtGetCompiledModelOutputBufferRequirements(net.compiled, 0, i, &needs));
        CHECK(LiteRtCreateManagedTensorBufferFromRequirements(net.environment, type, needs, buffer));
    }
}

static void add_options(Handle options, const char *whose, char *settings)
{
    Handle opaque;
    CHECK(LiteRtCreateOpaqueOptions(whose, settings, free, &opaque));
    CHECK(LiteRtAddOpaqueOptions(options, opaque));
}

void network_load(const char *path, int threads, int traced)
{
    Handle model, options, signature;
    char *settings = malloc(64);
    snprintf(settings, 64, "num_threads = %d\n", threads);
    CHECK(LiteRtCreateEnvironment(0, NULL, &net.environment));
    CHECK(LiteRtCreateModelFromFile(net.environment, path, &model));
    CHECK(LiteRtCreateOptions(&options));
    CHECK(LiteRtSetOptionsHardwareAccelerators(options, ACCELERATOR_CPU));
    add_options(options, "xnnpack", settings);
    if (traced)
        add_options(options, "runtime_options_string", strdup("enable_profiling = true\n"));
    CHECK(LiteRtCreateCompiledModel(net.environment, model, options, &net.compiled));
    CHECK(LiteRtGetModelSignature(model, 0, &signature));
    CHECK(LiteRtGetNumSignatureInputs(signature, &net.count[INPUT]));
    CHECK(LiteRtGetNumSignatureOutputs(signature, &net.count[OUTPUT]));
    if (net.count[INPUT] > MAX_TENSORS || net.count[OUTPUT] > MAX_TENSORS)
        refuse("more than %d inputs or outputs", MAX_TENSORS);
    create_buffers(signature);
    if (traced)
        CHECK(LiteRtCompiledModelGetProfiler(net.compiled, &net.profiler));
}

void network_run(void)
{
    CHECK(LiteRtRunCompiledModel(net.compiled, 0, net.count[INPUT], net.buffers[INPUT], net.count[OUTPUT],
                                 net.buffers[OUTPUT]));
}

size_t network_outputs(void)
{
    return net.count[OUTPUT];
}

Tensor tensor_open(int end, size_t index)
{
    Tensor tensor;
    CHECK(LiteRtGetTensorBufferPackedSize(net.buffers[end][index], &tensor.size));
    CHECK(LiteRtLockTensorBuffer(net.buffers[end][index], &tensor.values, end == INPUT ? LOCK_WRITE : LOCK_READ));
    return tensor;
}

void tensor_close(int end, size_t index)
{
    CHECK(LiteRtUnlockTensorBuffer(net.buffers[end][index]));
}

void trace_start(void)
{
    CHECK(LiteRtStartProfiler(net.profiler));
}

/* A delegate gives no begins. Part n takes n microseconds, and an operator of several parts (a concatenation) their sum:
 * they follow the operator before. */
static void show_delegated(long *end, long elapsed_us, const char *tag)
{
    long sum = *end + 1, last = *end + 1;
    while (sum < elapsed_us)
        sum += ++last;
    int following = *end >= 0 && sum == elapsed_us;
    show_operator(following ? *end + 1 : elapsed_us, following ? last : elapsed_us, -1, tag);
    *end = following ? last : elapsed_us;
}

void trace_stop(void)
{
    long end = -1;
    int count;
    CHECK(LiteRtStopProfiler(net.profiler));
    CHECK(LiteRtGetNumProfilerEvents(net.profiler, &count));
    Event *events = malloc((size_t)count * sizeof *events);
    CHECK(LiteRtGetProfilerEvents(net.profiler, count, events));
    for (const Event *e = events; e < events + count; e++)
        if (e->type == BY_DELEGATE)
            show_delegated(&end, (long)e->elapsed_us, e->tag);
        else if (e->type == BY_INTERPRETER)
            show_operator(part_at(e->start_us) + 1, part_at(e->start_us + e->elapsed_us), e->graph ? -1 : (long)e->node,
                          e->tag);
    free(events);
}
