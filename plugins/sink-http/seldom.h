#pragma once

#include <chrono>
#include <optional>

namespace millrace {

/// For a log line that must not come more often than a person can read. Threads: one at a time.
class Seldom {
 public:
  explicit Seldom(std::chrono::seconds interval) : interval_(interval) {}

  /// True if the line is due; the next one is after the interval.
  bool due() {
    const auto now = std::chrono::steady_clock::now();
    if (last_ && now - *last_ < interval_) return false;
    last_ = now;
    return true;
  }
  void reset() { last_.reset(); }

 private:
  std::chrono::seconds interval_;
  std::optional<std::chrono::steady_clock::time_point> last_;
};

}  // namespace millrace
