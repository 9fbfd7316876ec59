#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include <fmt/format.h>

namespace millrace::host {

/// For what may happen with every batch: lets one line a second through and counts what the others
/// would have told. Any thread.
class LogLimit {
 public:
  using Time = std::chrono::steady_clock::time_point;
  static constexpr std::chrono::seconds kPeriod{1};

  /// It has happened to `n` more items. If that may be written: how many were held back before;
  /// else nothing.
  std::optional<std::uint64_t> admit(std::uint64_t n, Time now = std::chrono::steady_clock::now()) {
    const std::lock_guard lock(mutex_);
    if (written_ && now - *written_ < kPeriod) {
      held_back_ += n;
      return std::nullopt;
    }
    written_ = now;
    return std::exchange(held_back_, 0);
  }
  /// How many are held back now; they are regarded as told.
  std::uint64_t take_rest() {
    const std::lock_guard lock(mutex_);
    return std::exchange(held_back_, 0);
  }

 private:
  std::mutex mutex_;
  std::optional<Time> written_;
  std::uint64_t held_back_ = 0;
};

/// The end of a line that stands for others as well.
[[nodiscard]] inline std::string and_more(std::uint64_t held_back) {
  return held_back == 0 ? std::string()
                        : fmt::format(" (and {} items more since the last such line)", held_back);
}

}  // namespace millrace::host
