#pragma once
#include <cstdint>
#include <string>
#include <vector>

// 8-bit pixels, row by row, without padding.
struct Image {
  int width = 0, height = 0, channels = 0;
  std::vector<uint8_t> pixels;
};

// Reads a JPEG or a binary PPM or PGM as RGB (3 channels) or grey (1), upright. Throws std::runtime_error.
Image read_image(const std::string& path, int channels);

// RGB to grey by ITU-R 601 luma in integers, or grey to RGB.
Image with_channels(const Image& image, int channels);
