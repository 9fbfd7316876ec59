#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "millrace/context.h"

#include "run/conditions.h"

namespace millrace::host {

/// A counter that mostly has one writer at a time; then it costs no locked instruction. Any thread
/// may read.
class Tally {
 public:
  /// Several threads will add at once. Called before they begin.
  void share() noexcept { shared_ = true; }
  void add(std::uint64_t n = 1) noexcept {
    if (shared_) {
      value_.fetch_add(n, std::memory_order_relaxed);
    } else {
      value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
    }
  }
  void subtract(std::uint64_t n) noexcept { add(0 - n); }
  [[nodiscard]] std::uint64_t value() const noexcept {
    return value_.load(std::memory_order_relaxed);
  }

 private:
  std::atomic<std::uint64_t> value_{0};
  bool shared_ = false;
};

/// What became of a stage's items. At the end of a run
/// in = handled + rejected + dropped + failed holds for every stage but sources.
class Account {
 public:
  Tally in;          ///< items that came
  Tally out;         ///< items given on; with several readers still counted once
  Tally handled;     ///< input items that the stage has done with
  Counter rejected;  ///< taken out by Rejected
  Counter failed;    ///< came while or after the stage failed for good
  Counter retried;   ///< items of calls that had to be repeated
  Tally batches;
  Counter busy_ns;      ///< time in the stage's own code, see BusySampler
  Counter undelivered;  ///< of a source: batches whose receipt failed

  Conditions conditions;

  std::atomic<std::uint64_t> progress_done{0};  ///< see Context::progress
  std::atomic<std::uint64_t> progress_total{0};

  void drop(std::string_view reason, std::uint64_t n) {
    const std::lock_guard lock(mutex_);
    dropped_[std::string(reason)] += n;
  }
  Counter& counter(std::string_view name) {
    const std::lock_guard lock(mutex_);
    for (auto& [known, counter] : counters_) {
      if (known == name) return counter;
    }
    return counters_
        .emplace_back(std::piecewise_construct, std::forward_as_tuple(name),
                      std::forward_as_tuple())
        .second;
  }

  [[nodiscard]] std::map<std::string, std::uint64_t> dropped() const {
    const std::lock_guard lock(mutex_);
    return dropped_;
  }
  [[nodiscard]] std::uint64_t dropped_items() const {
    std::uint64_t sum = 0;
    for (const auto& [reason, n] : dropped()) sum += n;
    return sum;
  }
  [[nodiscard]] std::vector<std::pair<std::string, std::uint64_t>> counters() const {
    const std::lock_guard lock(mutex_);
    std::vector<std::pair<std::string, std::uint64_t>> list;
    for (const auto& [name, counter] : counters_) list.emplace_back(name, counter.value());
    return list;
  }

 private:
  mutable std::mutex mutex_;
  std::map<std::string, std::uint64_t> dropped_;
  std::deque<std::pair<std::string, Counter>> counters_;  // a deque: references stay valid
};

}  // namespace millrace::host
