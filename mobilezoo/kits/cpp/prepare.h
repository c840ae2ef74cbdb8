#pragma once
#include <vector>

#include "image.h"
#include "model.h"

struct Size {
  int height, width;
};

// Size that an image is resized to before the crop is taken.
Size resized_size(int height, int width);

// First row or column of the crop in a resized image; negative where that is smaller.
int crop_start(int length, int wanted);

// Resizes an image and cuts the part from it that the network sees: model::height × model::width.
Image fit(const Image& image);

// An image of the right size as the network's input: the whole batch, filled with copies.
std::vector<model::Value> tensor(const Image& image);
