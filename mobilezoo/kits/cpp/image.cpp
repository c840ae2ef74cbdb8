// JPEG by libjpeg-turbo with its default settings, as Pillow decodes it. Other formats: convert them to PPM, or use the
// decoder that your app has; color profiles are ignored, and white is laid behind transparent pixels.
#include "image.h"

#include <cctype>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>

#include <jpeglib.h>
// After it:
#include <jerror.h>

namespace {

using Bytes = std::vector<uint8_t>;
constexpr int kMostSide = 65500;

[[noreturn]] void fail(j_common_ptr info) {
  char text[JMSG_LENGTH_MAX];
  info->err->format_message(info, text);
  throw std::runtime_error(text);
}

// Orientation 1..8 in the EXIF block of a marker; 1 where there is none.
int orientation(const uint8_t* data, size_t size) {
  if (size < 14 || std::memcmp(data, "Exif\0\0", 6) != 0) return 1;
  const uint8_t* tiff = data + 6;
  size -= 6;
  const bool big = tiff[0] == 'M';
  auto number = [&](size_t at, int bytes) -> size_t {
    if (at + bytes > size) return 0;
    size_t value = 0;
    for (int i = 0; i < bytes; ++i) value |= size_t(tiff[at + i]) << 8 * (big ? bytes - 1 - i : i);
    return value;
  };
  const size_t directory = number(4, 4);
  const size_t entries = number(directory, 2);
  for (size_t i = 0; i < entries; ++i) {
    const size_t entry = directory + 2 + 12 * i;
    if (number(entry, 2) == 0x0112) {
      const size_t value = number(entry + 8, 2);
      return value >= 1 && value <= 8 ? int(value) : 1;
    }
  }
  return 1;
}

// Mirrors and turns an image by its EXIF orientation.
Image upright(const Image& image, int turn) {
  if (turn == 1) return image;
  const bool swapped = turn >= 5;
  const int w = image.width, h = image.height, c = image.channels;
  Image out{swapped ? h : w, swapped ? w : h, c, Bytes(image.pixels.size())};
  for (int y = 0; y < out.height; ++y) {
    for (int x = 0; x < out.width; ++x) {
      int from_x = swapped ? y : x, from_y = swapped ? x : y;
      if (turn == 2 || turn == 3 || turn == 7 || turn == 8) from_x = w - 1 - from_x;
      if (turn == 3 || turn == 4 || turn == 6 || turn == 7) from_y = h - 1 - from_y;
      std::memcpy(&out.pixels[(size_t(y) * out.width + x) * c], &image.pixels[(size_t(from_y) * w + from_x) * c], c);
    }
  }
  return out;
}

Image read_jpeg(const Bytes& bytes) {
  jpeg_decompress_struct info{};
  jpeg_error_mgr errors;
  info.err = jpeg_std_error(&errors);
  errors.error_exit = fail;
  errors.emit_message = [](j_common_ptr info, int) {  // other warnings are of no concern, as in Pillow
    if (info->err->msg_code == JWRN_JPEG_EOF) throw std::runtime_error("a JPEG that is cut off");
  };
  jpeg_create_decompress(&info);
  Image image;
  int turn = 1;
  try {
    jpeg_mem_src(&info, bytes.data(), bytes.size());
    jpeg_save_markers(&info, JPEG_APP0 + 1, 0xFFFF);
    jpeg_read_header(&info, TRUE);
    for (auto* marker = info.marker_list; marker != nullptr && turn == 1; marker = marker->next) {
      turn = orientation(marker->data, marker->data_length);
    }
    if (info.num_components != 1 && info.num_components != 3) throw std::runtime_error("a JPEG of four inks: save it as RGB");
    info.out_color_space = info.num_components == 1 ? JCS_GRAYSCALE : JCS_RGB;
    jpeg_start_decompress(&info);
    image = Image{int(info.output_width), int(info.output_height), info.output_components, {}};
    const size_t stride = size_t(image.width) * image.channels;
    image.pixels.resize(stride * image.height);
    while (info.output_scanline < info.output_height) {
      JSAMPROW row = &image.pixels[stride * info.output_scanline];
      jpeg_read_scanlines(&info, &row, 1);
    }
  } catch (...) {
    jpeg_destroy_decompress(&info);
    throw;
  }
  jpeg_destroy_decompress(&info);
  return upright(image, turn);
}

// P5 or P6 with 255 as the greatest value.
Image read_pnm(const Bytes& bytes) {
  size_t at = 2;
  int numbers[3];
  for (int& number : numbers) {
    while (at < bytes.size() && (std::isspace(bytes[at]) || bytes[at] == '#')) {
      if (bytes[at] == '#') while (at < bytes.size() && bytes[at] != '\n') ++at;
      else ++at;
    }
    number = 0;
    while (at < bytes.size() && std::isdigit(bytes[at]) && number <= kMostSide) number = 10 * number + (bytes[at++] - '0');
  }
  ++at;
  Image image{numbers[0], numbers[1], bytes[1] == '6' ? 3 : 1, {}};
  const size_t size = size_t(image.width) * image.height * image.channels;
  if (numbers[2] != 255 || image.width < 1 || image.height < 1 || image.width > kMostSide || image.height > kMostSide ||
      at > bytes.size() || bytes.size() - at < size) {
    throw std::runtime_error("a damaged PPM, or one of more than 8 bits");
  }
  image.pixels.assign(bytes.begin() + at, bytes.begin() + at + size);
  return image;
}

}  // namespace

Image with_channels(const Image& image, int channels) {
  if (image.channels == channels) return image;
  const size_t count = size_t(image.width) * image.height;
  Image out{image.width, image.height, channels, Bytes(count * channels)};
  for (size_t i = 0; i < count; ++i) {
    const uint8_t* p = &image.pixels[i * image.channels];
    if (channels == 1) out.pixels[i] = uint8_t((p[0] * 19595u + p[1] * 38470u + p[2] * 7471u + 0x8000u) >> 16);
    else std::memset(&out.pixels[3 * i], p[0], 3);
  }
  return out;
}

Image read_image(const std::string& path, int channels) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw std::runtime_error("cannot be opened");
  const Bytes bytes((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
  if (bytes.size() > 3 && bytes[0] == 0xFF && bytes[1] == 0xD8) return with_channels(read_jpeg(bytes), channels);
  if (bytes.size() > 3 && bytes[0] == 'P' && (bytes[1] == '5' || bytes[1] == '6')) return with_channels(read_pnm(bytes), channels);
  throw std::runtime_error("neither JPEG nor binary PPM or PGM");
}
