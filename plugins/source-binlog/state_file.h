#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <utility>

#include "gtid_position.h"

namespace millrace {

/// Keeps a position beyond the process: one line of text, replaced as a whole and synced to the
/// disk, so that a crash leaves the old or the new one. Everything throws std::runtime_error that
/// names the file.
class StateFile {
 public:
  explicit StateFile(std::filesystem::path path) : path_(std::move(path)) {}

  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
  /// Nothing if there is no such file.
  [[nodiscard]] std::optional<GtidPosition> read() const;
  void write(const GtidPosition& position) const;

 private:
  std::filesystem::path path_;
};

}  // namespace millrace
