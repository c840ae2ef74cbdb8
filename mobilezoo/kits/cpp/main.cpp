// Prints the five best classes of images: ./classify photo.jpg more.jpg
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <numeric>
#include <stdexcept>

#include "image.h"
#include "model.h"
#include "network.h"
#include "prepare.h"

namespace {

// What the network answers for the first image of a batch, as a probability for each class.
std::vector<double> probabilities(const std::vector<model::Answer>& batch) {
  std::vector<double> scores(batch.begin(), batch.begin() + batch.size() / model::shape[0]);
  for (double& score : scores) {
    if (model::output_scale != 0) score = (score - model::output_zero) * model::output_scale;
    if (!std::isfinite(score)) throw std::runtime_error("the network answers with numbers that are not finite");
    if (model::output == "percent") score /= 100;
  }
  if (model::output != "logits") return scores;
  const double most = *std::max_element(scores.begin(), scores.end());
  for (double& score : scores) score = std::exp(score - most);
  const double sum = std::accumulate(scores.begin(), scores.end(), 0.0);
  for (double& score : scores) score /= sum;
  return scores;
}

// A label in one line.
std::string name_of(size_t index) {
  std::string name = index < model::labels.size() ? model::labels[index] : "";
  std::replace_if(name.begin(), name.end(), [](unsigned char c) { return c < ' '; }, ' ');
  return name;
}

void print_best(const std::string& path, const std::vector<double>& shares) {
  std::vector<size_t> order(shares.size());
  std::iota(order.begin(), order.end(), size_t(0));
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return shares[a] > shares[b]; });
  std::printf("%s\n", path.c_str());
  for (size_t i = 0; i < std::min<size_t>(5, order.size()); ++i) {
    const std::string name = name_of(order[i]);
    std::printf("  %6.2f %%  %4zu%s%s\n", 100 * shares[order[i]], order[i], name.empty() ? "" : "  ", name.c_str());
  }
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
        auto input = tensor(fit(read_image(words[i], int(model::mean.size()))));
        print_best(words[i], probabilities(network.run(input)));
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
