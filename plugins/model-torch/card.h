#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "millrace/features.h"
#include "millrace/plugin.h"

namespace millrace {

/// What a model's input looks like, from its card.
struct TensorSpec {
  bool floating = false;            ///< float32, else uint8
  float scale = 1;                  ///< bytes are multiplied by it, if floating
  std::vector<std::int64_t> shape;  ///< of one session
};

/// The card of a model: the file of the same name with .toml (docs/formats.md).
struct Card {
  std::string name;
  std::string version;
  std::vector<std::string> labels;  ///< by index
  double min_confidence = 0;        ///< below it the label is "unknown"
  bool probabilities = false;       ///< what the model gives; else logits
  std::string sha256;               ///< of the model's file, in small letters; empty: not told
  FeatureSpec features;
  TensorSpec tensor;
};

/// Throws std::runtime_error with everything that is wrong, a line each: `file:line:column: ...`.
[[nodiscard]] Card read_card(const std::filesystem::path& file);

// A stage has the options `model`, beside which the card lies, and `card` for another one.

/// The card that they name, without looking for it.
[[nodiscard]] std::filesystem::path card_file(const std::filesystem::path& model,
                                              const std::string& card);
/// The option that the card is of.
[[nodiscard]] std::string card_option(const std::string& card);
/// For the stage's check: reads it and tells what is wrong.
void check_card(const std::string& model, const std::string& card, Findings& findings);
/// For the stage's `open`. Throws ConfigError for `option`.
[[nodiscard]] Card load_card(const std::filesystem::path& file, const std::string& option);

}  // namespace millrace
