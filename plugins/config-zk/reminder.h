#pragma once

#include <chrono>
#include <string>
#include <string_view>

namespace millrace {

/// Keeps something that lasts from filling the log: it is said at once, and again after a while.
class Reminder {
 public:
  using Time = std::chrono::steady_clock::time_point;
  static constexpr std::chrono::minutes kAgain{5};

  /// Whether `what` is to be said now.
  bool due(std::string_view what, Time now) {
    if (what == said_ && now < at_ + kAgain) return false;
    said_ = what;
    at_ = now;
    return true;
  }
  /// It is over. Returns whether it had been said.
  bool clear() {
    const bool said = !said_.empty();
    said_.clear();
    return said;
  }

 private:
  std::string said_;
  Time at_{};
};

}  // namespace millrace
