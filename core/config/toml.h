#pragma once

#include <string>
#include <vector>

#include "config/report.h"
#include "config/value.h"
#include "config/variables.h"

namespace millrace::host {

/// Reads TOML (https://toml.io/en/v1.0.0) into values with places, entries in the order of the
/// file. A line that is no TOML is reported and left out, so that the rest is still looked at.
/// `syntax_errors` tells whether that happened: then something missing may stand in such a line.
struct TomlDocument {
  ConfigValue::Table root;
  bool syntax_errors = false;
  std::vector<Position> left_out{};  ///< the lines
};
[[nodiscard]] TomlDocument read_toml(const std::string& name, std::string text,
                                     const Variables& variables, Report& report);

/// Reads one value, as in `--set stage.key=value`; what is no TOML value is a text.
[[nodiscard]] ConfigValue read_toml_value(const std::string& name, const std::string& text,
                                          const Variables& variables, Report& report);

}  // namespace millrace::host
