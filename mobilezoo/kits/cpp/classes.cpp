// The five best classes of an image.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>

#include "answers.h"
#include "model.h"

namespace {

// Scores as a probability for each class.
std::vector<double> probabilities(const std::vector<float>& answer) {
  std::vector<double> scores(answer.begin(), answer.end());
  if (model::output == "percent") {
    for (double& score : scores) score /= 100;
  }
  if (model::output != "logits") return scores;
  const double most = *std::max_element(scores.begin(), scores.end());
  for (double& score : scores) score = std::exp(score - most);
  const double sum = std::accumulate(scores.begin(), scores.end(), 0.0);
  for (double& score : scores) score /= sum;
  return scores;
}

}  // namespace

void report(const std::string& path, const Image&, const std::vector<float>& answer) {
  const std::vector<double> shares = probabilities(answer);
  std::vector<size_t> order(shares.size());
  std::iota(order.begin(), order.end(), size_t(0));
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return shares[a] > shares[b]; });
  std::printf("%s\n", path.c_str());
  for (size_t i = 0; i < std::min<size_t>(5, order.size()); ++i) {
    std::printf("%s\n", line_of(order[i], shares[order[i]]).c_str());
  }
}
