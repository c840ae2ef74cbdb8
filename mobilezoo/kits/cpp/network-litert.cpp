// Runs the file on the CPU, with LiteRT's C API.
#include "network.h"

#include <cstring>
#include <stdexcept>

#include "litert_c.h"

namespace {

void check(int status, const std::string& step) {
  if (status != kLiteRtStatusOk) throw std::runtime_error("LiteRT cannot " + step + " (status " + std::to_string(status) + ")");
}

}  // namespace

struct Network::State {
  LiteRtEnvironment environment = nullptr;
  LiteRtModel file = nullptr;
  LiteRtCompiledModel compiled = nullptr;
  std::vector<LiteRtTensorBuffer> inputs, outputs;
  size_t scores = 0;  // place among the outputs

  ~State() {
    for (LiteRtTensorBuffer buffer : inputs) LiteRtDestroyTensorBuffer(buffer);
    for (LiteRtTensorBuffer buffer : outputs) LiteRtDestroyTensorBuffer(buffer);
    if (compiled != nullptr) LiteRtDestroyCompiledModel(compiled);
    if (file != nullptr) LiteRtDestroyModel(file);
    if (environment != nullptr) LiteRtDestroyEnvironment(environment);
  }

  void open(const std::string& path) {
    check(LiteRtCreateEnvironment(0, nullptr, &environment), "start");
    check(LiteRtCreateModelFromFile(environment, path.c_str(), &file), "read " + path);
    LiteRtOptions options = nullptr;
    check(LiteRtCreateOptions(&options), "make options");
    LiteRtSetOptionsHardwareAccelerators(options, kLiteRtHwAcceleratorCpu);
    const int status = LiteRtCreateCompiledModel(environment, file, options, &compiled);
    LiteRtDestroyOptions(options);
    check(status, "prepare " + path);
    make_buffers();
  }

  void make_buffers() {
    LiteRtSignature signature;
    LiteRtSubgraph graph;
    LiteRtTensor wanted, tensor;
    LiteRtTensorBufferRequirements needs;
    size_t given = 0, answers = 0;
    check(LiteRtGetModelSignature(file, 0, &signature), "find a signature");
    check(LiteRtGetSignatureSubgraph(signature, &graph), "find the graph");
    check(LiteRtGetSubgraphOutput(graph, model::output_index, &wanted), "find the output");
    check(LiteRtGetNumSignatureInputs(signature, &given), "count the inputs");
    if (given != 1) throw std::runtime_error("the file takes more than one input");
    check(LiteRtGetSignatureInputTensorByIndex(signature, 0, &tensor), "find the input");
    check(LiteRtGetCompiledModelInputBufferRequirements(compiled, 0, 0, &needs), "size the input");
    inputs.push_back(buffer(tensor, needs));
    check(LiteRtGetNumSignatureOutputs(signature, &answers), "count the outputs");
    for (size_t i = 0; i < answers; ++i) {  // in another order than those of the graph
      check(LiteRtGetSignatureOutputTensorByIndex(signature, i, &tensor), "find an output");
      if (tensor == wanted) scores = i;
      check(LiteRtGetCompiledModelOutputBufferRequirements(compiled, 0, i, &needs), "size an output");
      outputs.push_back(buffer(tensor, needs));
    }
  }

  LiteRtTensorBuffer buffer(LiteRtTensor tensor, LiteRtTensorBufferRequirements needs) {
    LiteRtRankedTensorType type{};
    LiteRtTensorBuffer made = nullptr;
    check(LiteRtGetRankedTensorType(tensor, &type), "read a type");
    check(LiteRtCreateManagedTensorBufferFromRequirements(environment, &type, needs, &made), "make a buffer");
    return made;
  }
};

Network::Network(const std::string& path) : state_(std::make_unique<State>()) { state_->open(path); }

Network::~Network() = default;

std::vector<model::Answer> Network::run(std::vector<model::Value>& input) {
  LiteRtTensorBuffer given = state_->inputs[0], answer = state_->outputs[state_->scores];
  void* place = nullptr;
  size_t size = 0;
  check(LiteRtGetTensorBufferPackedSize(given, &size), "size the input");
  if (size != input.size() * sizeof(model::Value)) throw std::runtime_error("the file takes an image of another size");
  check(LiteRtLockTensorBuffer(given, &place, kLiteRtTensorBufferLockModeWrite), "write the input");
  std::memcpy(place, input.data(), size);
  check(LiteRtUnlockTensorBuffer(given), "write the input");
  check(LiteRtRunCompiledModel(state_->compiled, 0, 1, state_->inputs.data(), state_->outputs.size(), state_->outputs.data()),
        "run the network");
  check(LiteRtGetTensorBufferPackedSize(answer, &size), "size the output");
  std::vector<model::Answer> scores(size / sizeof(model::Answer));
  check(LiteRtLockTensorBuffer(answer, &place, kLiteRtTensorBufferLockModeRead), "read the output");
  std::memcpy(scores.data(), place, scores.size() * sizeof(model::Answer));
  check(LiteRtUnlockTensorBuffer(answer), "read the output");
  return scores;
}
