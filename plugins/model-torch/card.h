#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "millrace/features.h"

#include "backend.h"

namespace millrace {

/// The card of a model: the file of the same name with .toml (docs/formats.md).
struct Card {
  std::string name;
  std::string version;
  std::vector<std::string> labels;  ///< by index
  double min_confidence = 0;        ///< below it the label is "unknown"
  FeatureSpec features;
  TensorSpec tensor;
};

/// Throws std::runtime_error with everything that is wrong, a line each: `file:line:column: ...`.
[[nodiscard]] Card read_card(const std::filesystem::path& file);

}  // namespace millrace
