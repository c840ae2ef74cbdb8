// What is recorded of the network: how an image becomes its input, and what its output means.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace model {

using Value = {{value}};   // of the input
using Answer = {{answer}};  // of the output

inline const std::string file = {{file}};
inline const std::vector<int64_t> shape = {{shape}};  // of the input; the first is the batch
inline const bool channels_last = {{channels_last}};
inline const bool blue_first = {{blue_first}};

inline const int height = {{height}}, width = {{width}};
inline const std::string interpolation = {{interpolation}}, crop_mode = {{crop_mode}};
inline const double crop_pct = {{crop_pct}};  // side of the crop over that of the resized image

inline const bool takes_pixels = {{takes_pixels}};                       // 0..255 as they are; else:
inline const std::vector<double> mean = {{mean}}, deviation = {{std}};  // (pixel / 255 - mean) / deviation
inline const double input_scale = {{input_scale}};                       // of integers: round(value / scale) + zero
inline const int input_zero = {{input_zero}};

inline const int output_index = {{output_index}};
inline const double output_scale = {{output_scale}};  // of integers: (answer - zero) * scale
inline const int output_zero = {{output_zero}};
inline const std::string output = {{output}};  // logits, probabilities, percent or sigmoid

inline const std::vector<std::string> labels = {
{{labels}}};

}  // namespace model
