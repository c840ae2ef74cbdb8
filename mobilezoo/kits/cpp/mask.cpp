// The class of every pixel of an image: shares of the classes are printed, the mask is drawn.
#include "mask.h"

#include <algorithm>
#include <cstdio>
#include <numeric>
#include <stdexcept>

#include "answers.h"
#include "draw.h"

std::vector<size_t> mask_of(const std::vector<float>& answer) {
  if (answer.size() != model::rows * model::columns * model::classes) {
    throw std::runtime_error("the file answers with another layout");
  }
  std::vector<size_t> mask;
  for (const float* pixel = answer.data(); pixel != answer.data() + answer.size(); pixel += model::classes) {
    mask.push_back(size_t(std::max_element(pixel, pixel + model::classes) - pixel));
  }
  return mask;
}

void report(const std::string& path, const Image& image, const std::vector<float>& answer) {
  const std::vector<size_t> mask = mask_of(answer);
  std::vector<size_t> counts(model::classes), order(model::classes);
  for (size_t index : mask) ++counts[index];
  std::iota(order.begin(), order.end(), size_t(0));
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return counts[a] > counts[b]; });
  Image drawn = with_channels(image, 3);
  draw_mask(drawn, mask, int(model::columns), int(model::rows), placement(image));
  std::printf("%s -> %s\n", path.c_str(), write_picture(path, drawn).c_str());
  for (size_t index : order) {
    if (counts[index] > 0) std::printf("%s\n", line_of(index, double(counts[index]) / double(mask.size())).c_str());
  }
}
