#pragma once
#include <vector>

#include "image.h"
#include "model.h"

// Resizes an image and cuts the part from it that the network sees: model::height × model::width.
Image fit(const Image& image);

// An image of the right size as the network's input: the whole batch, filled with copies.
std::vector<model::Value> tensor(const Image& image);
