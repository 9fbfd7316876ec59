#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>

#include "millrace/context.h"

namespace millrace::host {

enum class LogFormat : std::uint8_t { text, json };

/// Writes whole lines to standard error, from any thread, and keeps a progress line below them on a
/// terminal.
class Logger {
 public:
  Logger(LogFormat format, LogLevel least);
  Logger(const Logger&) = delete;
  Logger& operator=(const Logger&) = delete;
  ~Logger();

  /// `stage` may be empty: the host speaks.
  void log(LogLevel level, std::string_view stage, std::string_view message);
  /// Human text as it is; with the JSON format, nothing (the same is logged in members).
  void plain(std::string_view text);
  void json_line(std::string_view object);
  /// Shown only on a terminal, as much of it as a line holds; an empty text takes it away.
  void progress(std::string text);

  [[nodiscard]] LogFormat format() const { return format_; }
  [[nodiscard]] bool on_terminal() const { return terminal_; }

 private:
  void write(std::string_view text);

  const LogFormat format_;
  const LogLevel least_;
  const bool terminal_;
  std::mutex mutex_;
  std::string progress_;
};

}  // namespace millrace::host
