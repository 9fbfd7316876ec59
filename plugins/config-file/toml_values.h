#pragma once

#include <map>
#include <string>
#include <string_view>

namespace millrace {

/// The values of a TOML text as a config provider gives them: keys of inner tables joined by dots,
/// texts as they are, everything else as TOML writes it. Throws std::runtime_error with
/// "NAME:LINE:COLUMN: " before what is wrong: no TOML, a list, the same key in two ways.
[[nodiscard]] std::map<std::string, std::string> read_toml_values(std::string_view text,
                                                                  std::string_view name);

}  // namespace millrace
