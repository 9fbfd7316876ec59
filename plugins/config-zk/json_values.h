#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace millrace {

enum class ValueFormat : std::uint8_t { toml, json };

/// The values of a JSON object as a config provider gives them, like read_toml_values does for
/// TOML. A member that is null counts as one that is not there.
[[nodiscard]] std::map<std::string, std::string> read_json_values(std::string_view text,
                                                                  std::string_view name);

/// The names of the values that two texts do not have alike, with commas; never a value, as it may
/// be a secret.
[[nodiscard]] std::string different_keys(ValueFormat format, std::string_view before,
                                         std::string_view after);

[[nodiscard]] std::map<std::string, std::string> read_values(ValueFormat format,
                                                             std::string_view text,
                                                             std::string_view name);

}  // namespace millrace
