/* SPDX-License-Identifier: Apache-2.0
 *
 * What a runtime's file (litert_run.c, onnx_run.c, executorch_run.cpp) gives to runner.c, which holds `main` and the
 * three things every runner does. One network per process. A call that fails ends the process with `refuse`.
 */
#ifndef MOBILEZOO_RUNNER_H
#define MOBILEZOO_RUNNER_H

#include <stddef.h>

#ifdef __cplusplus
#define C_LINKAGE extern "C"
#else
#define C_LINKAGE
#endif

typedef struct {
    void *values;
    size_t size; /* bytes, packed */
} Tensor;

enum { INPUT = 0, OUTPUT = 1, MAX_TENSORS = 64 };

/* Arguments of the marker system call, see blockcount.c. */
enum { MARKER = 0xb0b0, COUNT_ENDS = 0, COUNT_STARTS = 1, MEMORY_STARTS = 2, PART_ENDS = 3 };

/* Load the file, and fill its inputs with `fill`; `traced`: prepare the runtime's profiler too. */
C_LINKAGE void network_load(const char *path, int threads, int traced);
C_LINKAGE void network_run(void);
C_LINKAGE size_t network_outputs(void);
/* The memory of an input or output until `tensor_close`; an output's is valid after a run. */
C_LINKAGE Tensor tensor_open(int end, size_t index);
C_LINKAGE void tensor_close(int end, size_t index);

/* Around the run whose operators the profiler writes down; `trace_stop` gives each to `show_operator`. */
C_LINKAGE void trace_start(void);
C_LINKAGE void trace_stop(void);

/* Given by skip.c: the table of what was taken out is written to `path`. */
C_LINKAGE void skip_arithmetic(const char *path);

/* Given by clock.c. */
C_LINKAGE void clock_start(void);
C_LINKAGE void clock_stop(void);

/* Given by runner.c. `part_at`: which reading of clock.c gave so many microseconds; `show_operator`: parts `first` to
 * `last` belong to one operator, `node` of the file (-1: the runtime does not give it). */
C_LINKAGE long part_at(unsigned long us);
C_LINKAGE void show_operator(long first, long last, long node, const char *name);
/* Given by runner.c. `integer_width`: bytes per element of integers that may be indices, and of truth values; else 0. */
C_LINKAGE void fill(void *memory, size_t size, size_t integer_width);
C_LINKAGE void refuse(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

#endif
