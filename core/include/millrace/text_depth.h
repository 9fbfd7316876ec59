#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace millrace {

/// Parsers of TOML and JSON, and whoever walks over what they made, call themselves once for each
/// level, so a text of 40 KB can exhaust the stack. Every text from outside goes through one of
/// these first; they take no stack and one pass.
struct TextFault {
  std::size_t line = 0;  ///< counts from 1
  std::size_t column = 0;
  std::string message;
};

/// Levels that a TOML or JSON text may have. In TOML each part of a dotted key or header, each list
/// and each inline table is one.
inline constexpr std::size_t kDeepestText = 64;
inline constexpr std::size_t kLongestText = std::size_t{64} << 20U;

/// The first place where `text` is nested too deep, or its size if that is too large. Nothing if it
/// may be parsed, which is not to say that it is valid.
[[nodiscard]] std::optional<TextFault> toml_fault(std::string_view text);
[[nodiscard]] std::optional<TextFault> json_fault(std::string_view text);

}  // namespace millrace
