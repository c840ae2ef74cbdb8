// The boxes in an image, printed and drawn.
#include "boxes.h"

#include <algorithm>
#include <cstdio>
#include <stdexcept>

#include "answers.h"
#include "draw.h"

namespace {

constexpr size_t kMost = 100;  // boxes of an image

// Intersection over union of two boxes.
double covered(const Box& a, const Box& b) {
  const double width = std::min(a.right, b.right) - std::max(a.left, b.left);
  const double height = std::min(a.bottom, b.bottom) - std::max(a.top, b.top);
  const double both = std::max(0.0, width) * std::max(0.0, height);
  const float areas = (a.right - a.left) * (a.bottom - a.top) + (b.right - b.left) * (b.bottom - b.top);
  const double either = areas - both;
  return either > 0 ? both / either : 0;
}

}  // namespace

std::vector<Box> boxes_of(const std::vector<float>& answer) {
  if (answer.size() != model::places * model::numbers) throw std::runtime_error("the file answers with another layout");
  std::vector<Box> found, kept;
  for (size_t place = 0; place < model::places; ++place) {
    const float *row = &answer[place * model::numbers], *end = row + model::numbers;
    const float* best = std::max_element(row + 4, end);
    const Box box{size_t(best - row - 4), *best, row[0], row[1], row[2], row[3]};
    if (box.right > box.left && box.bottom > box.top && box.probability >= model::least_score) found.push_back(box);
  }
  std::stable_sort(found.begin(), found.end(), [](const Box& a, const Box& b) { return a.probability > b.probability; });
  for (const Box& box : found) {
    if (kept.size() == kMost) break;
    const bool is_new = std::all_of(kept.begin(), kept.end(), [&](const Box& better) {
      return box.index != better.index || covered(box, better) <= model::most_overlap;
    });
    if (is_new) kept.push_back(box);
  }
  return kept;
}

void report(const std::string& path, const Image& image, const std::vector<float>& answer) {
  const std::vector<Box> found = boxes_of(answer);
  const Place place = placement(image);
  Image drawn = with_channels(image, 3);
  std::string lines;
  for (const Box& box : found) {
    const Sides sides = place.of(box.left, box.top, box.right, box.bottom);
    char text[128];
    std::snprintf(text, sizeof text, "  %.1f %.1f %.1f %.1f", sides.left, sides.top, sides.right, sides.bottom);
    lines += line_of(box.index, box.probability, text) + "\n";
  }
  for (auto box = found.rbegin(); box != found.rend(); ++box) {  // the most probable one on top
    draw_box(drawn, place.of(box->left, box->top, box->right, box->bottom), box->index, box->probability);
  }
  const std::string picture = write_picture(path, drawn);
  std::printf("%s -> %s\n%s", path.c_str(), picture.c_str(), lines.empty() ? "  nothing found\n" : lines.c_str());
}
