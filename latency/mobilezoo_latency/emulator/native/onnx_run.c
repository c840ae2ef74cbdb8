/* SPDX-License-Identifier: Apache-2.0
 *
 * onnx_run: an .onnx file through ONNX Runtime's C API on the CPU provider, see runner.c.
 *
 * The C API is a table of functions whose order never changes: new ones are appended. Only the places of those that are
 * called here are restated. Sessions run sequentially, with all graph optimizations, as they do by default.
 */
#include "runner.h"

#include <stdint.h>
#include <stdlib.h>

typedef void *Handle;
typedef Handle Status; /* NULL: success */

typedef struct {
    const void *const *(*get_api)(uint32_t version);
    const char *(*get_version)(void);
} ApiBase;

const ApiBase *OrtGetApiBase(void);

enum { API_VERSION = 1, LOG_ERROR = 3, MAX_AXES = 16 };

enum { /* places in the table */
    GET_ERROR_MESSAGE = 2,
    CREATE_ENV = 3,
    CREATE_SESSION = 7,
    RUN = 9,
    CREATE_SESSION_OPTIONS = 10,
    SET_SESSION_LOG_SEVERITY = 22,
    SET_INTRA_OP_THREADS = 24,
    SET_INTER_OP_THREADS = 25,
    INPUT_COUNT = 30,
    OUTPUT_COUNT = 31,
    INPUT_TYPE_INFO = 33,
    INPUT_NAME = 36,
    OUTPUT_NAME = 37,
    CREATE_TENSOR = 48,
    TENSOR_DATA = 51,
    TENSOR_INFO_OF_TYPE = 55,
    ELEMENT_TYPE = 60,
    AXES_COUNT = 61,
    AXES = 62,
    ELEMENT_COUNT = 64,
    TENSOR_INFO_OF_VALUE = 65,
    DEFAULT_ALLOCATOR = 78,
    RELEASE_TENSOR_INFO = 99,
};

/* ONNXTensorElementDataType → bytes per element, and whether `fill` treats it as an index */
static const struct {
    uint8_t bytes, index;
} TYPES[] = {[1] = {4, 0}, [2] = {1, 0},  [3] = {1, 0},  [4] = {2, 0},  [5] = {2, 0},  [6] = {4, 1},
             [7] = {8, 1}, [9] = {1, 1},  [10] = {2, 0}, [11] = {8, 0}, [12] = {4, 1}, [13] = {8, 1}};

static const void *const *api;

static struct {
    Handle session, values[2][MAX_TENSORS]; /* inputs, outputs */
    char *names[2][MAX_TENSORS];
    size_t count[2];
} net;

/* Calls the function at a place of the table with arguments of the given types. */
#define CALL(place, types, ...) check(((Status(*) types)api[place])(__VA_ARGS__))

static void check(Status status)
{
    if (status)
        refuse("ONNX Runtime: %s", ((const char *(*)(Status))api[GET_ERROR_MESSAGE])(status));
}

/* Size in bytes of a described tensor. */
static size_t size_of(Handle info)
{
    int type;
    size_t elements;
    CALL(ELEMENT_TYPE, (Handle, int *), info, &type);
    CALL(ELEMENT_COUNT, (Handle, size_t *), info, &elements);
    if (type < 0 || (size_t)type >= sizeof TYPES / sizeof *TYPES || !TYPES[type].bytes)
        refuse("ONNX Runtime: tensors of element type %d are not fed here", type);
    return elements * TYPES[type].bytes;
}

static void create_input(size_t index, Handle allocator)
{
    Handle type_info, info;
    int64_t axes[MAX_AXES];
    size_t rank;
    int type;
    CALL(INPUT_TYPE_INFO, (Handle, size_t, Handle *), net.session, index, &type_info);
    CALL(TENSOR_INFO_OF_TYPE, (Handle, Handle *), type_info, &info);
    if (!info)
        refuse("ONNX Runtime: input %zu is no tensor", index);
    CALL(ELEMENT_TYPE, (Handle, int *), info, &type);
    CALL(AXES_COUNT, (Handle, size_t *), info, &rank);
    if (rank > MAX_AXES)
        refuse("ONNX Runtime: input %zu has %zu axes", index, rank);
    CALL(AXES, (Handle, int64_t *, size_t), info, axes, rank);
    for (size_t i = 0; i < rank; i++) {
        if (axes[i] < 1 && i)
            refuse("axis %zu of input %zu is open: export the file with a fixed size", i, index);
        axes[i] = axes[i] < 1 ? 1 : axes[i]; /* one image where the batch is open */
    }
    CALL(CREATE_TENSOR, (Handle, const int64_t *, size_t, int, Handle *), allocator, axes, rank, type,
         &net.values[INPUT][index]);
    Tensor tensor = tensor_open(INPUT, index); /* refuses types that are not in TYPES */
    fill(tensor.values, tensor.size, TYPES[type].index ? TYPES[type].bytes : 0);
}

static void open_session(const char *path, int threads)
{
    Handle environment, options;
    CALL(CREATE_ENV, (int, const char *, Handle *), LOG_ERROR, "onnx_run", &environment);
    CALL(CREATE_SESSION_OPTIONS, (Handle *), &options);
    CALL(SET_SESSION_LOG_SEVERITY, (Handle, int), options, LOG_ERROR);
    CALL(SET_INTRA_OP_THREADS, (Handle, int), options, threads);
    CALL(SET_INTER_OP_THREADS, (Handle, int), options, 1);
    CALL(CREATE_SESSION, (Handle, const char *, Handle, Handle *), environment, path, options, &net.session);
}

void network_load(const char *path, int threads, int traced)
{
    Handle allocator;
    if (traced)
        refuse("ONNX Runtime: operators are not counted");
    api = OrtGetApiBase()->get_api(API_VERSION);
    open_session(path, threads);
    CALL(INPUT_COUNT, (Handle, size_t *), net.session, &net.count[INPUT]);
    CALL(OUTPUT_COUNT, (Handle, size_t *), net.session, &net.count[OUTPUT]);
    if (net.count[INPUT] > MAX_TENSORS || net.count[OUTPUT] > MAX_TENSORS)
        refuse("more than %d inputs or outputs", MAX_TENSORS);
    CALL(DEFAULT_ALLOCATOR, (Handle *), &allocator);
    for (int end = INPUT; end <= OUTPUT; end++)
        for (size_t i = 0; i < net.count[end]; i++)
            CALL(end ? OUTPUT_NAME : INPUT_NAME, (Handle, size_t, Handle, char **), net.session, i, allocator,
                 &net.names[end][i]);
    for (size_t i = 0; i < net.count[INPUT]; i++)
        create_input(i, allocator);
}

/* The first run allocates the outputs; later ones write into the same. */
void network_run(void)
{
    CALL(RUN, (Handle, Handle, char **, Handle *, size_t, char **, size_t, Handle *), net.session, NULL,
         net.names[INPUT], net.values[INPUT], net.count[INPUT], net.names[OUTPUT], net.count[OUTPUT],
         net.values[OUTPUT]);
}

size_t network_outputs(void)
{
    return net.count[OUTPUT];
}

Tensor tensor_open(int end, size_t index)
{
    Tensor tensor;
    Handle info;
    CALL(TENSOR_DATA, (Handle, void **), net.values[end][index], &tensor.values);
    CALL(TENSOR_INFO_OF_VALUE, (Handle, Handle *), net.values[end][index], &info);
    tensor.size = size_of(info);
    ((void (*)(Handle))api[RELEASE_TENSOR_INFO])(info);
    return tensor;
}

void tensor_close(int end, size_t index)
{
    (void)end, (void)index; /* the memory belongs to the value */
}

void trace_start(void) {}

void trace_stop(void) {}
