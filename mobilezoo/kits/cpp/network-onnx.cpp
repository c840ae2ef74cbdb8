// Runs the file on the CPU, with ONNX Runtime's C API.
#include "network.h"

#include <stdexcept>
#include <type_traits>

#include "onnxruntime_c.h"

namespace {

const OrtApi* api = OrtGetApiBase()->GetApi(ORT_API_VERSION);

void check(OrtStatus* status) {
  if (status == nullptr) return;
  const std::string text = api->GetErrorMessage(status);
  api->ReleaseStatus(status);
  throw std::runtime_error(text);
}

template <typename T>
constexpr ONNXTensorElementDataType kType = std::is_same_v<T, float>    ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT
                                            : std::is_same_v<T, int8_t> ? ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8
                                                                        : ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;

}  // namespace

struct Network::State {
  OrtEnv* environment = nullptr;
  OrtSessionOptions* options = nullptr;
  OrtSession* session = nullptr;
  OrtMemoryInfo* memory = nullptr;
  std::string given, wanted;  // names of the input and of the output

  ~State() {
    if (memory != nullptr) api->ReleaseMemoryInfo(memory);
    if (session != nullptr) api->ReleaseSession(session);
    if (options != nullptr) api->ReleaseSessionOptions(options);
    if (environment != nullptr) api->ReleaseEnv(environment);
  }

  void open(const std::string& path) {
    if (api == nullptr) throw std::runtime_error("libonnxruntime is older than the header that this was built with");
    check(api->CreateEnv(ORT_LOGGING_LEVEL_WARNING, "classify", &environment));
    check(api->CreateSessionOptions(&options));
    check(api->CreateSession(environment, path.c_str(), options, &session));
    check(api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
    OrtAllocator* allocator = nullptr;
    check(api->GetAllocatorWithDefaultOptions(&allocator));
    char* name = nullptr;
    check(api->SessionGetInputName(session, 0, allocator, &name));
    given = name;
    check(api->AllocatorFree(allocator, name));
    check(api->SessionGetOutputName(session, model::output_index, allocator, &name));
    wanted = name;
    check(api->AllocatorFree(allocator, name));
  }
};

Network::Network(const std::string& path) : state_(std::make_unique<State>()) { state_->open(path); }

Network::~Network() = default;

std::vector<model::Answer> Network::run(std::vector<model::Value>& input) {
  OrtValue *image = nullptr, *answer = nullptr;
  check(api->CreateTensorWithDataAsOrtValue(state_->memory, input.data(), input.size() * sizeof(model::Value),
                                            model::shape.data(), model::shape.size(), kType<model::Value>, &image));
  const char *given = state_->given.c_str(), *wanted = state_->wanted.c_str();
  OrtStatus* status = api->Run(state_->session, nullptr, &given, &image, 1, &wanted, 1, &answer);
  api->ReleaseValue(image);
  check(status);
  OrtTensorTypeAndShapeInfo* info = nullptr;
  ONNXTensorElementDataType type;
  size_t count = 0;
  void* place = nullptr;
  check(api->GetTensorTypeAndShape(answer, &info));
  check(api->GetTensorElementType(info, &type));
  check(api->GetTensorShapeElementCount(info, &count));
  api->ReleaseTensorTypeAndShapeInfo(info);
  if (type != kType<model::Answer>) {
    api->ReleaseValue(answer);
    throw std::runtime_error("the file answers with numbers of another type than model.h says");
  }
  check(api->GetTensorMutableData(answer, &place));
  const auto* numbers = static_cast<const model::Answer*>(place);
  std::vector<model::Answer> scores(numbers, numbers + count);
  api->ReleaseValue(answer);
  return scores;
}
