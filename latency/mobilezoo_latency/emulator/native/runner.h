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

/* Load the file, and fill its inputs with `fill`. */
C_LINKAGE void network_load(const char *path, int threads);
C_LINKAGE void network_run(void);
C_LINKAGE size_t network_outputs(void);
/* The memory of an input or output until `tensor_close`; an output's is valid after a run. */
C_LINKAGE Tensor tensor_open(int end, size_t index);
C_LINKAGE void tensor_close(int end, size_t index);

/* Given by runner.c. `integer_width`: bytes per element of integers that may be indices, and of truth values; else 0. */
C_LINKAGE void fill(void *memory, size_t size, size_t integer_width);
C_LINKAGE void refuse(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

#endif
