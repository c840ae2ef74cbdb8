#include "answers.h"

#include <algorithm>
#include <cstdio>

#include "model.h"

std::string name_of(size_t index) {
  std::string name = index < model::labels.size() ? model::labels[index] : "";
  std::replace_if(name.begin(), name.end(), [](unsigned char c) { return c < ' '; }, ' ');
  return name;
}

std::string line_of(size_t index, double share, const std::string& more) {
  char start[64];
  std::snprintf(start, sizeof start, "  %6.2f %%  %4zu  ", 100 * share, index);
  const std::string line = start + name_of(index) + more;
  return line.substr(0, line.find_last_not_of(' ') + 1);
}
