#pragma once
#include <memory>
#include <string>
#include <vector>

#include "model.h"

// A loaded file. Throws std::runtime_error with the runtime's reason where it cannot be loaded or run.
class Network {
 public:
  explicit Network(const std::string& path);
  ~Network();

  // The scores of a whole batch, as the file gives them.
  std::vector<model::Answer> run(std::vector<model::Value>& input);

 private:
  struct State;
  std::unique_ptr<State> state_;
};
