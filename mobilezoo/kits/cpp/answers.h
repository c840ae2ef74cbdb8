#pragma once
#include <string>
#include <vector>

#include "image.h"

// Prints what the network answers for an image: its numbers, of one image, as real ones.
void report(const std::string& path, const Image& image, const std::vector<float>& answer);

// The name of a class in one line; empty where model.h has none.
std::string name_of(size_t index);

// One line of text: a probability or share, number and name of a class, and more.
std::string line_of(size_t index, double share, const std::string& more = "");
