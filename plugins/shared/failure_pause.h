#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace millrace {

/// Slows a queue's source down while every receipt fails: a stage behind it that has failed fails
/// all it is given at once, and the same tickets would come round as fast as the machine allows.
/// One thread at a time.
class FailurePause {
 public:
  using Time = std::chrono::steady_clock::time_point;

  void done() noexcept { *this = {}; }
  void failed(Time now) noexcept {
    // What was emitted before the pause fails during it.
    if (now < until_) return;
    if (++failures_ <= kFree) return;
    const std::uint32_t doublings = std::min(failures_ - kFree - 1, kDoublings);
    until_ = now + std::min<Pause>(kFirst * (std::uint32_t{1} << doublings), kMost);
  }
  /// Nothing is to be emitted before.
  [[nodiscard]] Time until() const noexcept { return until_; }

  /// So many failures without a success in between do not slow anything down: tickets come back
  /// for other reasons, too.
  static constexpr std::uint32_t kFree = 8;

 private:
  using Pause = std::chrono::milliseconds;
  static constexpr Pause kFirst{50};
  static constexpr Pause kMost{5000};
  static constexpr std::uint32_t kDoublings = 7;

  std::uint32_t failures_ = 0;
  Time until_{};
};

}  // namespace millrace
