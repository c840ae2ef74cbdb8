// Boxes and masks are drawn into a copy of the image, which is written as JPEG.
#include "draw.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <set>
#include <stdexcept>

#include <jpeglib.h>

#include "answers.h"
#include "model.h"
#include "prepare.h"

namespace {

using Color = std::array<uint8_t, 3>;
constexpr int kOpacity = 160;  // of a mask, of 255

// Letters of 3×5 pixels, an octal digit for each row; small letters are drawn as capitals.
const std::string kLetters = " %&'()+,-./0123456789:?ABCDEFGHIJKLMNOPQRSTUVWXYZ_";
const uint16_t kRows[] = {
    000000, 051245, 025253, 022000, 012221, 042224, 002720, 000024, 000700, 000002, 011244,          //  %&'()+,-./
    075557, 026227, 071747, 071717, 055711, 074717, 074757, 071122, 075757, 075717, 002020, 071202,  // 0-9 : ?
    025755, 065656, 034443, 065556, 074647, 074644, 034553, 055755, 072227, 011152, 055655, 044447, 057755,
    065555, 025552, 065644, 025563, 065655, 034216, 072222, 055557, 055552, 055775, 055255, 055222, 071247, 000007,
};

// A color for each class, far from those of its neighbours: lightness 55 %, saturation 85 %.
Color color_of(size_t index) {
  const double low = 0.1675, high = 0.9325;
  auto part = [&](double hue) {
    hue -= std::floor(hue);
    double share = 0;
    if (hue < 1 / 6.0) share = 6 * hue;
    else if (hue < 1 / 2.0) share = 1;
    else if (hue < 2 / 3.0) share = 6 * (2 / 3.0 - hue);
    return uint8_t(std::nearbyint(255 * (low + (high - low) * share)));
  };
  const double hue = double(index) * 0.381966;
  return {part(hue + 1 / 3.0), part(hue), part(hue - 1 / 3.0)};
}

// Fills left..right - 1 and top..bottom - 1, as far as that lies in the image.
void fill(Image& image, int left, int top, int right, int bottom, const Color& color) {
  for (int y = std::max(0, top); y < std::min(image.height, bottom); ++y) {
    for (int x = std::max(0, left); x < std::min(image.width, right); ++x) {
      std::copy(color.begin(), color.end(), &image.pixels[3 * (size_t(y) * image.width + x)]);
    }
  }
}

// Black letters on a ground of the color, `unit` pixels for each of theirs.
void write_text(Image& image, const std::string& text, int x, int y, int unit, const Color& color) {
  fill(image, x, y, x + (4 * int(text.size()) + 1) * unit, y + 7 * unit, color);
  for (size_t i = 0; i < text.size(); ++i) {
    const size_t found = kLetters.find(char(std::toupper(static_cast<unsigned char>(text[i]))));
    const int rows = kRows[found == std::string::npos ? kLetters.find('?') : found];
    for (int at = 0; at < 15; ++at) {
      if ((rows >> (14 - at) & 1) == 0) continue;
      const int left = x + (4 * int(i) + 1 + at % 3) * unit, top = y + (1 + at / 3) * unit;
      fill(image, left, top, left + unit, top + unit, {0, 0, 0});
    }
  }
}

int whole(double x) { return int(std::nearbyint(x)); }

}  // namespace

Place placement(const Image& image) {
  const Size size = resized_size(image.height, image.width);
  const double x = double(image.width) / size.width, y = double(image.height) / size.height;
  return {crop_start(size.width, model::width) * x, crop_start(size.height, model::height) * y, model::width * x,
          model::height * y};
}

void draw_box(Image& image, const Sides& sides, size_t index, double probability) {
  const int wide = std::max(1, whole(std::max(image.width, image.height) / 250.0)), unit = std::max(2, wide);
  const int left = whole(sides.left), top = whole(sides.top), right = whole(sides.right), bottom = whole(sides.bottom);
  const Color color = color_of(index);
  fill(image, left, top, right, top + wide, color);
  fill(image, left, bottom - wide, right, bottom, color);
  fill(image, left, top, left + wide, bottom, color);
  fill(image, right - wide, top, right, bottom, color);
  std::string name = name_of(index);
  const bool plain = std::all_of(name.begin(), name.end(), [](unsigned char c) { return c < 128; });
  if (name.empty() || !plain) name = std::to_string(index);  // there are no other letters here
  const std::string text = name + " " + std::to_string(whole(100 * probability)) + " %";
  write_text(image, text, std::max(0, left), std::max(0, top - 7 * unit), unit, color);
}

void draw_mask(Image& image, const std::vector<size_t>& mask, int columns, int rows, const Place& place) {
  const int left = whole(place.left), top = whole(place.top), width = whole(place.width), height = whole(place.height);
  for (int y = std::max(0, top); y < std::min(image.height, top + height); ++y) {
    const size_t row = size_t((y - top + 0.5) * rows / height);
    for (int x = std::max(0, left); x < std::min(image.width, left + width); ++x) {
      const size_t index = mask[row * columns + size_t((x - left + 0.5) * columns / width)];
      if (index == 0) continue;
      const Color color = color_of(index);
      uint8_t* pixel = &image.pixels[3 * (size_t(y) * image.width + x)];
      for (int c = 0; c < 3; ++c) pixel[c] = uint8_t((pixel[c] * (255 - kOpacity) + color[c] * kOpacity + 127) / 255);
    }
  }
}

std::string write_picture(const std::string& path, const Image& image) {
  static std::set<std::string> written;
  std::string name = path.substr(path.find_last_of('/') + 1);
  const size_t dot = name.find_last_of('.');
  name = (dot == 0 ? name : name.substr(0, dot)) + ".found.jpg";
  if (!written.insert(name).second) {
    throw std::runtime_error(name + " is the picture of another image of this name: draw it by itself");
  }
  const std::string part = name + ".part";
  std::FILE* file = std::fopen(part.c_str(), "wb");
  if (file == nullptr) throw std::runtime_error(name + " cannot be written into this folder");
  jpeg_compress_struct info{};
  jpeg_error_mgr errors;
  info.err = jpeg_std_error(&errors);
  errors.error_exit = [](j_common_ptr) { throw std::runtime_error("the picture cannot be written"); };
  jpeg_create_compress(&info);
  try {
    jpeg_stdio_dest(&info, file);
    info.image_width = JDIMENSION(image.width);
    info.image_height = JDIMENSION(image.height);
    info.input_components = 3;
    info.in_color_space = JCS_RGB;
    jpeg_set_defaults(&info);
    jpeg_set_quality(&info, 92, TRUE);
    jpeg_start_compress(&info, TRUE);
    while (info.next_scanline < info.image_height) {
      JSAMPROW row = const_cast<JSAMPROW>(&image.pixels[size_t(3) * image.width * info.next_scanline]);
      jpeg_write_scanlines(&info, &row, 1);
    }
    jpeg_finish_compress(&info);
  } catch (...) {
    jpeg_destroy_compress(&info);
    std::fclose(file);
    std::remove(part.c_str());
    throw;
  }
  jpeg_destroy_compress(&info);
  if (std::fclose(file) != 0 || std::rename(part.c_str(), name.c_str()) != 0) {
    throw std::runtime_error(name + " cannot be written into this folder");
  }
  return name;
}
