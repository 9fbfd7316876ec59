#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <utility>
#include <vector>

#include "run/account.h"

namespace millrace::host {

class BusySampler;

/// Says on whose account a thread works. Fused stages call each other on one thread; every hop in
/// and out switches, which is two plain stores. Lives on its thread.
class Timekeeper {
 public:
  explicit Timekeeper(BusySampler& sampler);
  Timekeeper(const Timekeeper&) = delete;
  Timekeeper& operator=(const Timekeeper&) = delete;
  ~Timekeeper();

  /// Returns whose time it was until now, to be switched back to. Null: waiting.
  Account* switch_to(Account* account) noexcept {
    Account* before = current_.load(std::memory_order_relaxed);
    current_.store(account, std::memory_order_relaxed);
    return before;
  }

 private:
  friend class BusySampler;
  std::atomic<Account*> current_{nullptr};
  BusySampler& sampler_;
};

/// Finds out where the time goes by looking from time to time what each thread works on, as a
/// profiler does: reading a clock at every hop would cost more than the hop. Any thread; the
/// accounts outlive it.
class BusySampler {
 public:
  static constexpr std::chrono::milliseconds kPeriod{10};

  /// Whether a thread is in that stage's own code at this moment.
  [[nodiscard]] bool works_on(const Account& account) {
    const std::lock_guard lock(mutex_);
    return std::ranges::any_of(keepers_, [&](const Timekeeper* keeper) {
      return keeper->current_.load(std::memory_order_relaxed) == &account;
    });
  }

  /// Puts the time since the last look on the accounts that are worked on now. One thread.
  void look() {
    const auto now = std::chrono::steady_clock::now();
    const auto passed = static_cast<std::uint64_t>(
        std::chrono::nanoseconds(now - std::exchange(last_, now)).count());
    const std::lock_guard lock(mutex_);
    for (const Timekeeper* keeper : keepers_) {
      if (Account* account = keeper->current_.load(std::memory_order_relaxed)) {
        account->busy_ns.add(passed);
      }
    }
  }

 private:
  friend class Timekeeper;
  std::mutex mutex_;
  std::vector<const Timekeeper*> keepers_;
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

inline Timekeeper::Timekeeper(BusySampler& sampler) : sampler_(sampler) {
  const std::lock_guard lock(sampler_.mutex_);
  sampler_.keepers_.push_back(this);
}

inline Timekeeper::~Timekeeper() {
  const std::lock_guard lock(sampler_.mutex_);
  std::erase(sampler_.keepers_, this);
}

}  // namespace millrace::host
