#include "run/logger.h"

#include <algorithm>
#include <chrono>

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "millrace/json.h"
#include "millrace/session.h"

namespace millrace::host {

namespace {

std::string_view level_name(LogLevel level) {
  switch (level) {
    case LogLevel::debug:
      return "debug";
    case LogLevel::info:
      return "info";
    case LogLevel::warning:
      return "warning";
    case LogLevel::error:
      return "error";
  }
  return "info";
}

std::string now_text() {
  return to_rfc3339(std::chrono::time_point_cast<Duration>(std::chrono::system_clock::now()));
}

/// Standard error may be a full pipe or gone; there is nobody left to tell.
void write_all(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
    if (written <= 0) return;
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

/// A line that is as wide as the terminal would begin a new one.
std::size_t room_of_line() {
  constexpr std::size_t kUsual = 80;
  winsize size{};
  const bool known = ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return (known ? size.ws_col : kUsual) - 1;
}

}  // namespace

Logger::Logger(LogFormat format, LogLevel least)
    : format_(format), least_(least), terminal_(::isatty(STDERR_FILENO) != 0) {}

Logger::~Logger() { progress({}); }

void Logger::write(std::string_view text) {
  const std::lock_guard lock(mutex_);
  if (progress_.empty()) return write_all(text);
  write_all(fmt::format("\r\x1b[K{}{}", text, progress_));
}

void Logger::log(LogLevel level, std::string_view stage, std::string_view message) {
  if (level < least_) return;
  if (format_ == LogFormat::json) {
    std::string line;
    {
      json::Object object(line);
      object.member("time", now_text());
      object.member("level", level_name(level));
      if (!stage.empty()) object.member("stage", stage);
      object.member("message", message);
    }
    return write(line + '\n');
  }
  const std::string head = level == LogLevel::info ? "" : fmt::format("{}: ", level_name(level));
  write(stage.empty() ? fmt::format("millrace: {}{}\n", head, message)
                      : fmt::format("millrace: {}{}: {}\n", head, stage, message));
}

void Logger::plain(std::string_view text) {
  if (format_ == LogFormat::text) write(text);
}

void Logger::json_line(std::string_view object) {
  if (format_ == LogFormat::json) write(fmt::format("{}\n", object));
}

void Logger::progress(std::string text) {
  if (!terminal_ || format_ == LogFormat::json) return;
  if (!text.empty()) {
    text.resize(std::min(text.size(), room_of_line()));
    text += '\r';  // what another program prints does not begin behind it
  }
  const std::lock_guard lock(mutex_);
  if (text == progress_) return;
  progress_ = std::move(text);
  write_all(fmt::format("\r\x1b[K{}", progress_));
}

}  // namespace millrace::host
