// Runs the network on images and reports what it answers for each: see README.md.
#include <cmath>
#include <cstdio>
#include <exception>
#include <stdexcept>

#include "answers.h"
#include "image.h"
#include "model.h"
#include "network.h"
#include "prepare.h"

namespace {

// What the network answers for the first image of a batch, as real numbers.
std::vector<float> first_of(const std::vector<model::Answer>& batch) {
  std::vector<float> numbers(batch.begin(), batch.begin() + batch.size() / model::shape[0]);
  for (float& number : numbers) {
    if (model::output_scale != 0) number = (number - float(model::output_zero)) * float(model::output_scale);
    if (!std::isfinite(number)) throw std::runtime_error("the network answers with numbers that are not finite");
  }
  return numbers;
}

std::string beside(const std::string& program, const std::string& file) {
  const size_t slash = program.find_last_of('/');
  return slash == std::string::npos ? file : program.substr(0, slash + 1) + file;
}

}  // namespace

int main(int count, char** words) {
  if (count < 2) {
    std::fprintf(stderr, "usage: %s IMAGE ...\n", words[0]);
    return 2;
  }
  if (model::labels.empty()) std::fprintf(stderr, "no names of classes in model.h: they are shown by their number\n");
  int code = 0;
  try {
    Network network(beside(words[0], model::file));
    for (int i = 1; i < count; ++i) {
      try {
        const Image image = read_image(words[i], int(model::mean.size()));
        auto input = tensor(fit(image));
        report(words[i], image, first_of(network.run(input)));
      } catch (const std::exception& error) {
        std::fprintf(stderr, "%s: %s\n", words[i], error.what());
        code = 2;
      }
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
  return code;
}
