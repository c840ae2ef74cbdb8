/* SPDX-License-Identifier: Apache-2.0
 *
 * executorch_run: the `forward` method of a .pte file through ExecuTorch's Module, see runner.c.
 *
 * Built against the headers and shared libraries of ExecuTorch's wheel; XNNPACK and the kernels register themselves when
 * their libraries are loaded. ExecuTorch takes as many threads as the processor has cores: one, on an emulated core.
 */
#include <memory>
#include <string>
#include <vector>

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor_ptr.h>

#include "runner.h"

namespace {

using executorch::aten::ScalarType;
using executorch::extension::Module;
using executorch::extension::TensorPtr;
using executorch::runtime::Error;
using executorch::runtime::EValue;

const char *const METHOD = "forward";

std::unique_ptr<Module> module_;
std::vector<TensorPtr> inputs;
std::vector<std::vector<char>> memory;
std::vector<EValue> values, outputs;
size_t output_count;

void check(Error error, const char *what)
{
    if (error != Error::Ok)
        refuse("ExecuTorch: %s: error 0x%x", what, static_cast<unsigned>(error));
}

size_t index_width(ScalarType type)
{
    switch (type) {
    case ScalarType::Long:
        return 8;
    case ScalarType::Int:
        return 4;
    case ScalarType::Bool:
        return 1;
    default:
        return 0;
    }
}

void create_input(size_t index, const executorch::runtime::MethodMeta &method)
{
    auto meta = method.input_tensor_meta(index);
    check(meta.error(), "an input is no tensor");
    std::vector<executorch::aten::SizesType> sizes(meta->sizes().begin(), meta->sizes().end());
    memory.emplace_back(meta->nbytes());
    fill(memory.back().data(), memory.back().size(), index_width(meta->scalar_type()));
    inputs.push_back(
        executorch::extension::make_tensor_ptr(std::move(sizes), memory.back().data(), meta->scalar_type()));
    values.emplace_back(inputs.back());
}

} // namespace

void network_load(const char *path, int threads, int traced)
{
    if (traced)
        refuse("ExecuTorch: operators are not counted");
    if (threads != 1)
        refuse("ExecuTorch: one thread only, not %d", threads);
    module_ = std::make_unique<Module>(std::string(path), Module::LoadMode::File);
    check(module_->load(executorch::runtime::Program::Verification::InternalConsistency), "the program does not load");
    check(module_->load_method(METHOD), "method forward does not load");
    auto method = module_->method_meta(METHOD);
    check(method.error(), "method_meta");
    output_count = method->num_outputs();
    memory.reserve(method->num_inputs());
    for (size_t i = 0; i < method->num_inputs(); i++)
        create_input(i, *method);
}

/* A run copies its inputs to where the program plans them, as in any application. */
void network_run(void)
{
    auto result = module_->execute(METHOD, values);
    check(result.error(), "execute");
    outputs = std::move(*result);
}

size_t network_outputs(void)
{
    return output_count;
}

Tensor tensor_open(int end, size_t index)
{
    if (end == INPUT)
        return {memory.at(index).data(), memory.at(index).size()};
    if (!outputs.at(index).isTensor())
        refuse("ExecuTorch: output %zu is no tensor", index);
    auto tensor = outputs[index].toTensor();
    return {tensor.mutable_data_ptr(), tensor.nbytes()};
}

void tensor_close(int, size_t) {} /* nothing is copied */

void trace_start(void) {}

void trace_stop(void) {}
