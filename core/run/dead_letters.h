#pragma once

#include <cstdio>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string_view>

#include "millrace/batch.h"

namespace millrace::host {

/// Where a stage's rejected items go with `on_reject = { file = "..." }`: one JSON object a line
/// with time, stage, reason, type and the item. Appended to; every line is written at once.
class DeadLetters {
 public:
  /// Throws std::system_error if the file cannot be opened for appending.
  explicit DeadLetters(const std::filesystem::path& path);

  void write(std::string_view stage, std::string_view reason, const BatchBase& items);

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  std::mutex mutex_;
  std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace millrace::host
