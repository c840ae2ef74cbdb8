// An image becomes the network's input exactly as model.h says. The resampling repeats Pillow's arithmetic for 8-bit
// images: two passes, columns first, weights with 22 fractional bits, rounded to bytes after each pass. (Pillow 13 takes
// rows first where that is cheaper: then a byte may differ by one.)
#include "prepare.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <stdexcept>

namespace {

constexpr int kBits = 22, kHalf = 1 << (kBits - 1);
constexpr double kPi = 3.14159265358979323846;

double sinc(double x) { return x == 0 ? 1 : std::sin(kPi * x) / (kPi * x); }

// Weight of a source pixel at distance x from the center, in units of the larger pixel.
double weight(const std::string& filter, double x) {
  if (filter == "box") return x > -0.5 && x <= 0.5 ? 1 : 0;
  if (filter == "lanczos") return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0;
  const double t = std::fabs(x);
  if (filter == "bilinear") return t < 1 ? 1 - t : 0;
  if (filter == "hamming") return t >= 1 ? 0 : sinc(x) * (0.54 + 0.46 * std::cos(kPi * x));
  const double a = -0.5;
  if (t < 1) return ((a + 2) * t - (a + 3)) * t * t + 1;
  return t < 2 ? (((t - 5) * t + 8) * t - 4) * a : 0;
}

double reach(const std::string& filter) {
  if (filter == "box") return 0.5;
  return filter == "lanczos" ? 3 : filter == "bicubic" ? 2 : 1;
}

// For each output pixel the first source pixel and the weights from there on.
struct Axis {
  std::vector<int> first;
  std::vector<std::vector<int>> weights;
};

Axis nearest(int from, int to) {
  Axis axis;
  double place = double(from) / to * 0.5;  // summed up as Pillow does, rounding included
  for (int i = 0; i < to; ++i, place += double(from) / to) {
    axis.first.push_back(std::min(from - 1, int(std::floor(place))));
    axis.weights.push_back({1 << kBits});
  }
  return axis;
}

Axis axis_of(int from, int to, const std::string& filter) {
  if (filter == "nearest") return nearest(from, to);
  Axis axis;
  const double scale = double(from) / to, stretch = std::max(scale, 1.0), support = reach(filter) * stretch;
  for (int i = 0; i < to; ++i) {
    const double center = (i + 0.5) * scale;
    const int start = std::max(0, int(center - support + 0.5)), end = std::min(from, int(center + support + 0.5));
    std::vector<double> exact;
    double sum = 0;
    for (int k = start; k < end; ++k) {
      exact.push_back(weight(filter, (k - center + 0.5) * (1 / stretch)));
      sum += exact.back();
    }
    std::vector<int> whole;
    for (double value : exact) {
      const double share = sum != 0 ? value / sum : value;
      whole.push_back(int((share < 0 ? -0.5 : 0.5) + share * (1 << kBits)));
    }
    axis.first.push_back(start);
    axis.weights.push_back(whole);
  }
  return axis;
}

uint8_t byte(int sum) { return uint8_t(std::clamp(sum >> kBits, 0, 255)); }

Image across_columns(const Image& image, int width) {
  if (width == image.width) return image;
  const Axis axis = axis_of(image.width, width, model::interpolation);
  const int c = image.channels;
  Image out{width, image.height, c, std::vector<uint8_t>(size_t(width) * image.height * c)};
  for (int y = 0; y < image.height; ++y) {
    const uint8_t* row = &image.pixels[size_t(y) * image.width * c];
    for (int x = 0; x < width; ++x) {
      for (int channel = 0; channel < c; ++channel) {
        int sum = kHalf;
        const uint8_t* from = row + size_t(axis.first[x]) * c + channel;
        for (int w : axis.weights[x]) sum += *from * w, from += c;
        out.pixels[(size_t(y) * width + x) * c + channel] = byte(sum);
      }
    }
  }
  return out;
}

Image across_rows(const Image& image, int height) {
  if (height == image.height) return image;
  const Axis axis = axis_of(image.height, height, model::interpolation);
  const size_t stride = size_t(image.width) * image.channels;
  Image out{image.width, height, image.channels, std::vector<uint8_t>(stride * height)};
  std::vector<int> sums(stride);
  for (int y = 0; y < height; ++y) {
    std::fill(sums.begin(), sums.end(), kHalf);
    const uint8_t* from = &image.pixels[stride * axis.first[y]];
    for (int w : axis.weights[y]) {
      for (size_t i = 0; i < stride; ++i) sums[i] += from[i] * w;
      from += stride;
    }
    for (size_t i = 0; i < stride; ++i) out.pixels[stride * y + i] = byte(sums[i]);
  }
  return out;
}

int half_to_even(double x) { return int(std::nearbyint(x)); }

// The network's number for a byte of a channel, in single precision as in training.
model::Value value_of(int pixel, int channel) {
  if (model::takes_pixels) return model::Value(pixel);
  const float value = (float(pixel) / 255.0f - float(model::mean[channel])) / float(model::deviation[channel]);
  if constexpr (std::is_integral_v<model::Value>) {
    const double whole = double(std::nearbyint(value / float(model::input_scale))) + model::input_zero;
    using Limits = std::numeric_limits<model::Value>;
    return model::Value(std::clamp(whole, double(Limits::min()), double(Limits::max())));
  } else {
    return model::Value(value);
  }
}

}  // namespace

Size resized_size(int h, int w) {
  const int to_h = int(model::height / model::crop_pct), to_w = int(model::width / model::crop_pct);
  if (model::crop_mode == "squash") return {to_h, to_w};
  if (model::crop_mode == "center" && to_h == to_w) {
    const int64_t side = to_h, short_side = std::min(h, w);
    return {int(side * h / short_side), int(side * w / short_side)};
  }
  const double of_h = double(h) / to_h, of_w = double(w) / to_w;
  const double ratio = model::crop_mode == "border" ? std::max(of_h, of_w) : std::min(of_h, of_w);
  return {half_to_even(h / ratio), half_to_even(w / ratio)};
}

int crop_start(int length, int wanted) {
  return wanted > length ? -((wanted - length) / 2) : half_to_even((length - wanted) / 2.0);
}

Image fit(const Image& image) {
  const Size size = resized_size(image.height, image.width);
  if (size.height < 1 || size.width < 1) throw std::runtime_error("too narrow an image");
  const Image resized = across_rows(across_columns(image, size.width), size.height);
  const int c = image.channels, top = crop_start(size.height, model::height), left = crop_start(size.width, model::width);
  Image crop{model::width, model::height, c, std::vector<uint8_t>(size_t(model::width) * model::height * c)};
  for (size_t i = 0; i < crop.pixels.size() && model::crop_mode == "border"; ++i) {
    crop.pixels[i] = uint8_t(half_to_even(255 * model::mean[i % c]));
  }
  const int first = std::max(0, -left), last = std::min(model::width, size.width - left);
  for (int y = std::max(0, -top); y < std::min(model::height, size.height - top); ++y) {
    std::memcpy(&crop.pixels[(size_t(y) * model::width + first) * c],
                &resized.pixels[(size_t(y + top) * size.width + first + left) * c], size_t(last - first) * c);
  }
  return crop;
}

std::vector<model::Value> tensor(const Image& image) {
  const size_t count = size_t(image.width) * image.height, c = image.channels;
  std::vector<model::Value> one(count * c), batch;
  for (size_t channel = 0; channel < c; ++channel) {
    model::Value table[256];
    for (int pixel = 0; pixel < 256; ++pixel) table[pixel] = value_of(pixel, int(channel));
    const size_t place = model::blue_first && c == 3 ? 2 - channel : channel;
    for (size_t i = 0; i < count; ++i) {
      one[model::channels_last ? i * c + place : place * count + i] = table[image.pixels[i * c + channel]];
    }
  }
  for (int64_t i = 0; i < model::shape[0]; ++i) batch.insert(batch.end(), one.begin(), one.end());
  return batch;
}
