#pragma once

#include <filesystem>
#include <memory>
#include <mutex>
#include <string_view>

#include "millrace/batch.h"

namespace millrace::host {

/// Where a stage's rejected items go with `on_reject = { file = "..." }`: one JSON object a line
/// with time, stage, reason, type and the item. Appended to; every line is written at once. Half a
/// line, of a full disk or of a process that was killed, is taken back. Several may write to one
/// file.
class DeadLetters {
 public:
  /// Throws std::system_error if the file cannot be opened for appending.
  explicit DeadLetters(const std::filesystem::path& path);
  DeadLetters(const DeadLetters&) = delete;
  DeadLetters& operator=(const DeadLetters&) = delete;
  ~DeadLetters();

  void write(std::string_view stage, std::string_view reason, const BatchBase& items);

 private:
  class File;
  std::mutex mutex_;
  std::unique_ptr<File> file_;
};

}  // namespace millrace::host
