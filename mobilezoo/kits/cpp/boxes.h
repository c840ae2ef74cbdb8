#pragma once
#include <cstddef>
#include <vector>

namespace model {

inline const size_t places = {{places}}, numbers = {{numbers}};  // of one image; left, top, right, bottom, a probability for each class
inline const float least_score = {{least_score}}f;    // probability from which a box counts
inline const double most_overlap = {{most_overlap}};  // intersection over union of two boxes of a class that both count

}  // namespace model

// A box that was found; its sides are shares 0..1 of the sides of the crop that the network sees.
struct Box {
  size_t index;  // of its class
  float probability;
  float left, top, right, bottom;
};

// The boxes of one image, most probable first, without those that cover a better one.
std::vector<Box> boxes_of(const std::vector<float>& answer);
