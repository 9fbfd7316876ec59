#pragma once

#include <chrono>
#include <cstdint>

#include "run/account.h"

namespace millrace::host {

/// A clock that costs a few nanoseconds to read: the processor's time stamp counter where there is
/// one. Its unit is found out at the end by comparing with the steady clock.
inline std::uint64_t ticks() noexcept {
#if defined(__x86_64__)
  return __builtin_ia32_rdtsc();
#else
  return static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
#endif
}

/// Says to which stage a thread's time belongs. Fused stages call each other on one thread; every
/// hop in and out switches, so each gets the time of its own code only.
class Timekeeper {
 public:
  Timekeeper() : since_(ticks()) {}

  /// Returns whose time it was until now, to be switched back to. Null: waiting.
  Account* switch_to(Account* account) noexcept {
    const std::uint64_t now = ticks();
    if (current_ != nullptr) current_->busy_ticks.add(now - since_);
    since_ = now;
    return std::exchange(current_, account);
  }

 private:
  Account* current_ = nullptr;
  std::uint64_t since_;
};

}  // namespace millrace::host
