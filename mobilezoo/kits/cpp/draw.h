#pragma once
#include <string>
#include <vector>

#include "image.h"

// In pixels of the image.
struct Sides {
  double left, top, right, bottom;
};

// Where the crop that the network sees lies in an image, in its pixels; it may reach beyond the image.
struct Place {
  double left, top, width, height;

  Sides of(float a, float b, float c, float d) const {  // of a box in shares of the crop
    return {left + a * width, top + b * height, left + c * width, top + d * height};
  }
};
Place placement(const Image& image);

// Draws a box with its class into an RGB image.
void draw_box(Image& image, const Sides& sides, size_t index, double probability);

// Draws the classes of a mask into an RGB image; the first class, the background, stays clear.
void draw_mask(Image& image, const std::vector<size_t>& mask, int columns, int rows, const Place& place);

// Writes an RGB image into the current folder, photo.jpg as photo.found.jpg, and returns its name.
std::string write_picture(const std::string& path, const Image& image);
