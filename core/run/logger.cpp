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

/// What comes from elsewhere (a server's answer, a value from ZooKeeper) must neither move the
/// cursor nor pass for a line of its own: control characters are escaped, and what follows a line
/// end is indented.
std::string printable(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    // U+0080 to U+009F are control characters as well, in UTF-8 C2 80 to C2 9F.
    const bool high = byte == 0xc2 && i + 1 < text.size() &&
                      static_cast<unsigned char>(text[i + 1]) >= 0x80 &&
                      static_cast<unsigned char>(text[i + 1]) < 0xa0;
    if (byte == '\n') {
      out += "\n  ";
    } else if (high) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[++i]));
    } else if ((byte < 0x20 && byte != '\t') || byte == 0x7f) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += text[i];
    }
  }
  return out;
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
  while (message.ends_with('\n')) message.remove_suffix(1);
  const std::string text = printable(message);
  write(stage.empty() ? fmt::format("millrace: {}{}\n", head, text)
                      : fmt::format("millrace: {}{}: {}\n", head, stage, text));
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
    text = printable(text);
    text.resize(std::min(text.size(), room_of_line()));
    text += '\r';  // what another program prints does not begin behind it
  }
  const std::lock_guard lock(mutex_);
  if (text == progress_) return;
  progress_ = std::move(text);
  write_all(fmt::format("\r\x1b[K{}", progress_));
}

}  // namespace millrace::host
