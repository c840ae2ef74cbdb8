/* SPDX-License-Identifier: Apache-2.0
 *
 * litert_run: loads a .tflite file with LiteRT's C API on the CPU and runs it. The same program counts under an
 * emulator and times on a real arm64 device (a phone over adb, a board over ssh).
 *
 *   litert_run MODEL THREADS count
 *       one warm run, then one run between two marker system calls (see blockcount.c).
 *   litert_run MODEL THREADS time WARMUP_RUNS WARMUP_S MIN_RUNS MIN_S
 *       warm-up, then at least MIN_RUNS runs and MIN_S seconds.
 *   litert_run MODEL THREADS compute INPUTS OUTPUTS INDEX
 *       INPUTS holds packed values of input 0, one run after the other; output INDEX of each is appended to OUTPUTS.
 *
 * Every line of output is `KEY VALUE`, written out at once, so that a run cut off half-way has lost nothing before:
 * load_ms, first_run_ms, warmup_ms and sample_ms (one per run each), output (the first four values of output 0), done.
 * The declarations restate the public C ABI of LiteRT 2 (opaque handles); built against libLiteRt.so alone.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

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

enum { ACCELERATOR_CPU = 1, LOCK_READ = 0, LOCK_WRITE = 1, MAX_TENSORS = 64, TENSOR_TYPE_BYTES = 512 };
enum { MARKER = 0xb0b0 };
enum { INT32 = 2, INT64 = 4, BOOL = 6 }; /* LiteRtElementType */

#define CHECK(call)                                                                                                    \
    do {                                                                                                               \
        Status status_ = (call);                                                                                       \
        if (status_) {                                                                                                 \
            fprintf(stderr, "LiteRT refused %s (status %d)\n", #call, status_);                                        \
            exit(3);                                                                                                   \
        }                                                                                                              \
    } while (0)

typedef struct {
    Handle environment, compiled, inputs[MAX_TENSORS], outputs[MAX_TENSORS];
    size_t input_count, output_count;
} Network;

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void say(const char *key, double value)
{
    printf("%s %.9g\n", key, value);
    fflush(stdout);
}

/* Bytes that are a plausible float32 (0.5) and, read as int8 or uint8, not all equal. Truth values and integers of four
 * bytes or more are 0 and 1 in turns: as an index or a token anything larger may lie outside of a table. */
static void fill(Handle buffer, const void *type)
{
    const float half = 0.5f;
    int element = *(const int *)type; /* a tensor type begins with its element's */
    size_t width = element == INT64 ? 8 : element == INT32 ? 4 : element == BOOL ? 1 : 0, size;
    void *memory;
    CHECK(LiteRtGetTensorBufferSize(buffer, &size));
    CHECK(LiteRtLockTensorBuffer(buffer, &memory, LOCK_WRITE));
    for (size_t i = 0; i < size; i++)
        ((uint8_t *)memory)[i] = width ? i % width == 0 && i / width % 2 : ((const uint8_t *)&half)[i % sizeof half];
    CHECK(LiteRtUnlockTensorBuffer(buffer));
}

static void create_buffers(Network *net, Handle signature)
{
    char type[TENSOR_TYPE_BYTES];
    Handle tensor, needs;
    for (size_t i = 0; i < net->input_count; i++) {
        CHECK(LiteRtGetSignatureInputTensorByIndex(signature, i, &tensor));
        CHECK(LiteRtGetRankedTensorType(tensor, type));
        CHECK(LiteRtGetCompiledModelInputBufferRequirements(net->compiled, 0, i, &needs));
        CHECK(LiteRtCreateManagedTensorBufferFromRequirements(net->environment, type, needs, &net->inputs[i]));
        fill(net->inputs[i], type);
    }
    for (size_t i = 0; i < net->output_count; i++) {
        CHECK(LiteRtGetSignatureOutputTensorByIndex(signature, i, &tensor));
        CHECK(LiteRtGetRankedTensorType(tensor, type));
        CHECK(LiteRtGetCompiledModelOutputBufferRequirements(net->compiled, 0, i, &needs));
        CHECK(LiteRtCreateManagedTensorBufferFromRequirements(net->environment, type, needs, &net->outputs[i]));
    }
}

static void load(Network *net, const char *path, int threads)
{
    Handle model, options, xnnpack, signature;
    char *settings = malloc(64);
    snprintf(settings, 64, "num_threads = %d\n", threads);
    CHECK(LiteRtCreateEnvironment(0, NULL, &net->environment));
    CHECK(LiteRtCreateModelFromFile(net->environment, path, &model));
    CHECK(LiteRtCreateOptions(&options));
    CHECK(LiteRtSetOptionsHardwareAccelerators(options, ACCELERATOR_CPU));
    CHECK(LiteRtCreateOpaqueOptions("xnnpack", settings, free, &xnnpack));
    CHECK(LiteRtAddOpaqueOptions(options, xnnpack));
    CHECK(LiteRtCreateCompiledModel(net->environment, model, options, &net->compiled));
    CHECK(LiteRtGetModelSignature(model, 0, &signature));
    CHECK(LiteRtGetNumSignatureInputs(signature, &net->input_count));
    CHECK(LiteRtGetNumSignatureOutputs(signature, &net->output_count));
    if (net->input_count > MAX_TENSORS || net->output_count > MAX_TENSORS) {
        fprintf(stderr, "more than %d inputs or outputs\n", MAX_TENSORS);
        exit(3);
    }
    create_buffers(net, signature);
}

static double run(Network *net)
{
    double start = now_s();
    CHECK(LiteRtRunCompiledModel(net->compiled, 0, net->input_count, net->inputs, net->output_count, net->outputs));
    return now_s() - start;
}

static void show_output(Network *net)
{
    void *memory;
    size_t size;
    CHECK(LiteRtGetTensorBufferSize(net->outputs[0], &size));
    CHECK(LiteRtLockTensorBuffer(net->outputs[0], &memory, LOCK_READ));
    printf("output");
    for (size_t i = 0; i < 4 && (i + 1) * sizeof(float) <= size; i++)
        printf(" %.6g", ((float *)memory)[i]);
    printf("\n");
    CHECK(LiteRtUnlockTensorBuffer(net->outputs[0]));
}

static void count(Network *net)
{
    syscall(MARKER, 2);
    run(net); /* plans memory, and fills the modelled caches */
    syscall(MARKER, 1);
    run(net);
    syscall(MARKER, 0);
}

static void take_samples(Network *net, long warmup_runs, double warmup_s, long min_runs, double min_s)
{
    say("first_run_ms", run(net) * 1e3);
    double total = 0;
    long runs = 0;
    for (; runs < warmup_runs || total < warmup_s; runs++) {
        double seconds = run(net);
        total += seconds;
        say("warmup_ms", seconds * 1e3);
    }
    for (runs = 0, total = 0; runs < min_runs || total < min_s; runs++) {
        double seconds = run(net);
        total += seconds;
        say("sample_ms", seconds * 1e3);
    }
}

/* The values of one run: false at the end of the file. */
static int take_input(Handle buffer, FILE *inputs)
{
    void *memory;
    size_t size, got;
    CHECK(LiteRtGetTensorBufferPackedSize(buffer, &size));
    CHECK(LiteRtLockTensorBuffer(buffer, &memory, LOCK_WRITE));
    got = fread(memory, 1, size, inputs);
    CHECK(LiteRtUnlockTensorBuffer(buffer));
    if (got && got != size) {
        fprintf(stderr, "the inputs end within a run: %zu of %zu bytes\n", got, size);
        exit(3);
    }
    return got != 0;
}

static void keep_output(Handle buffer, FILE *outputs)
{
    void *memory;
    size_t size;
    CHECK(LiteRtGetTensorBufferPackedSize(buffer, &size));
    CHECK(LiteRtLockTensorBuffer(buffer, &memory, LOCK_READ));
    if (fwrite(memory, 1, size, outputs) != size) {
        perror("the outputs cannot be written");
        exit(3);
    }
    CHECK(LiteRtUnlockTensorBuffer(buffer));
}

static void compute(Network *net, const char *from, const char *to, size_t index)
{
    FILE *inputs = fopen(from, "rb"), *outputs = fopen(to, "wb");
    if (!inputs || !outputs || index >= net->output_count) {
        fprintf(stderr, "cannot compute output %zu of %s into %s\n", index, from, to);
        exit(3);
    }
    while (take_input(net->inputs[0], inputs)) {
        run(net);
        keep_output(net->outputs[index], outputs);
    }
    if (fclose(outputs)) {
        perror("the outputs cannot be written");
        exit(3);
    }
}

int main(int argc, char **argv)
{
    Network net = {0};
    int timing = argc == 8 && !strcmp(argv[3], "time"), computing = argc == 7 && !strcmp(argv[3], "compute");
    if (!timing && !computing && !(argc == 4 && !strcmp(argv[3], "count"))) {
        fprintf(stderr, "usage: litert_run MODEL THREADS "
                        "(count | time WARMUP_RUNS WARMUP_S MIN_RUNS MIN_S | compute INPUTS OUTPUTS INDEX)\n");
        return 2;
    }
    double start = now_s();
    load(&net, argv[1], atoi(argv[2]));
    say("load_ms", (now_s() - start) * 1e3);
    if (timing)
        take_samples(&net, atol(argv[4]), atof(argv[5]), atol(argv[6]), atof(argv[7]));
    else if (computing)
        compute(&net, argv[4], argv[5], (size_t)atol(argv[6]));
    else
        count(&net);
    show_output(&net);
    printf("done 1\n");
    fflush(stdout);
    _exit(0); /* the runtime's own destructors are not part of what is measured */
}
