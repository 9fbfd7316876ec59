#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace millrace {

/// The files that the option `file` names: folders stand for the files in them, by name, without
/// hidden ones. Throws ConfigError("file", ...), with the name that was probably meant.
[[nodiscard]] std::vector<std::filesystem::path> list_captures(
    const std::vector<std::string>& names);

/// The sum of the files' sizes; 0 if standard input is among them.
[[nodiscard]] std::uint64_t total_size(const std::vector<std::filesystem::path>& files);

}  // namespace millrace
