#pragma once
#include <cstddef>
#include <vector>

namespace model {

inline const size_t rows = {{rows}}, columns = {{columns}}, classes = {{classes}};  // of one image's answer

}  // namespace model

// The class of every pixel of the crop that the network sees, row by row; of equal ones the first.
std::vector<size_t> mask_of(const std::vector<float>& answer);
