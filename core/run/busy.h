#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <ctime>
#include <mutex>
#include <utility>
#include <vector>

#include <pthread.h>

#include "run/account.h"

namespace millrace::host {

class BusySampler;

/// Says on whose account a thread works. Fused stages call each other on one thread; every hop in
/// and out switches, which is two plain stores. Lives on its thread.
class Timekeeper {
 public:
  /// `source`: the account of the source that runs on this thread. It waits for its input within
  /// its own code, so only the time counts for it in which the thread has the processor.
  explicit Timekeeper(BusySampler& sampler, const Account* source = nullptr);
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
  /// The processor's time that the thread has had since the last look.
  std::uint64_t take_processor_ns() {
    timespec now{};
    ::clock_gettime(clock_, &now);
    constexpr std::uint64_t kSecond = 1000000000;
    const std::uint64_t ns =
        static_cast<std::uint64_t>(now.tv_sec) * kSecond + static_cast<std::uint64_t>(now.tv_nsec);
    return ns - std::exchange(processor_ns_, ns);
  }

  std::atomic<Account*> current_{nullptr};
  BusySampler& sampler_;
  const Account* const source_;
  clockid_t clock_ = CLOCK_MONOTONIC;
  std::uint64_t processor_ns_ = 0;
};

/// Puts the thread's time on a stage's account for the length of a scope; null: it waits.
class OnAccount {
 public:
  OnAccount(Timekeeper& keeper, Account* account)
      : keeper_(keeper), before_(keeper.switch_to(account)) {}
  OnAccount(const OnAccount&) = delete;
  OnAccount& operator=(const OnAccount&) = delete;
  ~OnAccount() { keeper_.switch_to(before_); }

 private:
  Timekeeper& keeper_;
  Account* before_;
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
    for (Timekeeper* keeper : keepers_) {
      const std::uint64_t worked = keeper->source_ != nullptr ? keeper->take_processor_ns() : 0;
      if (Account* account = keeper->current_.load(std::memory_order_relaxed)) {
        account->busy_ns.add(account == keeper->source_ ? std::min(worked, passed) : passed);
      }
    }
  }

 private:
  friend class Timekeeper;
  std::mutex mutex_;
  std::vector<Timekeeper*> keepers_;
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

inline Timekeeper::Timekeeper(BusySampler& sampler, const Account* source)
    : sampler_(sampler), source_(source) {
  if (source_ != nullptr) {
    ::pthread_getcpuclockid(::pthread_self(), &clock_);
    take_processor_ns();
  }
  const std::lock_guard lock(sampler_.mutex_);
  sampler_.keepers_.push_back(this);
}

inline Timekeeper::~Timekeeper() {
  const std::lock_guard lock(sampler_.mutex_);
  std::erase(sampler_.keepers_, this);
}

}  // namespace millrace::host
