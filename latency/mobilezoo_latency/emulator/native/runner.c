/* SPDX-License-Identifier: Apache-2.0
 *
 * Loads a network on the CPU and runs it. The same program counts under an emulator and times on a real arm64 device
 * (a phone over adb, a board over ssh). Linked with the file of one runtime, see runner.h.
 *
 *   RUNNER MODEL THREADS count [SKIPPED]
 *       one warm run, then one run between two marker system calls (see blockcount.c). With the file SKIPPED, both
 *       without the arithmetic, which is written there (see skip.c); no output is shown then.
 *   RUNNER MODEL THREADS operators [SKIPPED]
 *       the same with the runtime's profiler, in parts (see clock.c).
 *   RUNNER MODEL THREADS time WARMUP_RUNS WARMUP_S MIN_RUNS MIN_S
 *       warm-up, then at least MIN_RUNS runs and MIN_S seconds.
 *   RUNNER MODEL THREADS compute INPUTS OUTPUTS INDEX
 *       INPUTS holds packed values of input 0, one run after the other; output INDEX of each is appended to OUTPUTS.
 *
 * Every line of output is `KEY VALUE`, written out at once, so that a run cut off half-way has lost nothing before:
 * load_ms, first_run_ms, warmup_ms and sample_ms (one per run each), operator (see runner.h), output (the first four
 * values of output 0), done.
 */
#define _GNU_SOURCE
#include "runner.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

void refuse(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    vfprintf(stderr, format, values);
    va_end(values);
    fputc('\n', stderr);
    fflush(stderr);
    _exit(3);
}

/* Bytes that are a plausible float32 (0.5) and, read as int8 or uint8, not all equal. Truth values and integers of four
 * bytes or more are 0 and 1 in turns: as an index or a token anything larger may lie outside of a table. */
void fill(void *memory, size_t size, size_t integer_width)
{
    const float half = 0.5f;
    size_t width = integer_width;
    for (size_t i = 0; i < size; i++)
        ((uint8_t *)memory)[i] = width ? i % width == 0 && i / width % 2 : ((const uint8_t *)&half)[i % sizeof half];
}

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

static double run(void)
{
    double start = now_s();
    network_run();
    return now_s() - start;
}

static void show_output(void)
{
    Tensor tensor = tensor_open(OUTPUT, 0);
    printf("output");
    for (size_t i = 0; i < 4 && (i + 1) * sizeof(float) <= tensor.size; i++)
        printf(" %.6g", ((float *)tensor.values)[i]);
    printf("\n");
    tensor_close(OUTPUT, 0);
}

static void count(void)
{
    syscall(MARKER, MEMORY_STARTS);
    run(); /* plans memory, and fills the modelled caches */
    syscall(MARKER, COUNT_STARTS);
    run();
    syscall(MARKER, COUNT_ENDS);
}

/* Without clock.c there are no parts. */
static void clock_does(const char *what)
{
    void (*call)(void) = (void (*)(void))dlsym(RTLD_DEFAULT, what);
    if (!call)
        refuse("no %s: the library of clock.c is not loaded", what);
    call();
}

static void count_operators(void)
{
    syscall(MARKER, MEMORY_STARTS);
    network_run();
    trace_start();
    clock_does("clock_start");
    syscall(MARKER, COUNT_STARTS);
    network_run();
    syscall(MARKER, COUNT_ENDS);
    clock_does("clock_stop");
    trace_stop();
}

long part_at(unsigned long us)
{
    unsigned long part = 0;
    while ((part + 1) * (part + 2) / 2 <= us)
        part++;
    return (long)part;
}

void show_operator(long first, long last, long node, const char *name)
{
    printf("operator %ld %ld %ld %s\n", first, last, node, name);
}

static void take_samples(long warmup_runs, double warmup_s, long min_runs, double min_s)
{
    say("first_run_ms", run() * 1e3);
    double total = 0;
    long runs = 0;
    for (; runs < warmup_runs || total < warmup_s; runs++) {
        double seconds = run();
        total += seconds;
        say("warmup_ms", seconds * 1e3);
    }
    for (runs = 0, total = 0; runs < min_runs || total < min_s; runs++) {
        double seconds = run();
        total += seconds;
        say("sample_ms", seconds * 1e3);
    }
}

/* The values of one run: false at the end of the file. */
static int take_input(FILE *inputs)
{
    Tensor tensor = tensor_open(INPUT, 0);
    size_t got = fread(tensor.values, 1, tensor.size, inputs);
    tensor_close(INPUT, 0);
    if (got && got != tensor.size)
        refuse("the inputs end within a run: %zu of %zu bytes", got, tensor.size);
    return got != 0;
}

static void keep_output(size_t index, FILE *outputs)
{
    Tensor tensor = tensor_open(OUTPUT, index);
    if (fwrite(tensor.values, 1, tensor.size, outputs) != tensor.size)
        refuse("the outputs cannot be written");
    tensor_close(OUTPUT, index);
}

static void compute(const char *from, const char *to, size_t index)
{
    FILE *inputs = fopen(from, "rb"), *outputs = fopen(to, "wb");
    if (!inputs || !outputs || index >= network_outputs())
        refuse("cannot compute output %zu of %s into %s", index, from, to);
    while (take_input(inputs)) {
        run();
        keep_output(index, outputs);
    }
    if (fclose(outputs))
        refuse("the outputs cannot be written");
}

int main(int argc, char **argv)
{
    int timing = argc == 8 && !strcmp(argv[3], "time"), computing = argc == 7 && !strcmp(argv[3], "compute");
    int tracing = (argc == 4 || argc == 5) && !strcmp(argv[3], "operators");
    int counting = (argc == 4 || argc == 5) && !strcmp(argv[3], "count");
    if (!timing && !computing && !tracing && !counting) {
        fprintf(stderr, "usage: %s MODEL THREADS (count [SKIPPED] | operators [SKIPPED] | "
                        "time WARMUP_RUNS WARMUP_S MIN_RUNS MIN_S | compute INPUTS OUTPUTS INDEX)\n", argv[0]);
        return 2;
    }
    double start = now_s();
    network_load(argv[1], atoi(argv[2]), tracing);
    say("load_ms", (now_s() - start) * 1e3);
    int skipping = (counting || tracing) && argc == 5;
    if (skipping)
        skip_arithmetic(argv[4]);
    if (timing)
        take_samples(atol(argv[4]), atof(argv[5]), atol(argv[6]), atof(argv[7]));
    else if (computing)
        compute(argv[4], argv[5], (size_t)atol(argv[6]));
    else if (tracing)
        count_operators();
    else
        count();
    if (!skipping)
        show_output();
    printf("done 1\n");
    fflush(stdout);
    _exit(0); /* the runtime's own destructors are not part of what is measured */
}
