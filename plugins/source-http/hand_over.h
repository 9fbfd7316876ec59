#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>
#include <optional>

#include "millrace/packet.h"

namespace millrace {

/// A bounded queue from the parsers to the one thread that may push: the one in `run`.
class HandOver {
 public:
  using SteadyClock = std::chrono::steady_clock;

  explicit HandOver(std::size_t most) : most_(most) {}

  /// Waits for room, at most for `patience` and only while not `stopped`. False: `batch` was not
  /// taken.
  bool put(Batch<Packet>& batch, Duration patience, const std::atomic<bool>& stopped);
  /// The next batch, if one comes within `patience`.
  [[nodiscard]] std::optional<Batch<Packet>> take(std::chrono::milliseconds patience);
  /// From now on nothing is taken in; what waits is dropped, and so its receipts fail.
  void close();

  /// How long it has been full, or the next stage busy with one push, without a batch being taken.
  [[nodiscard]] Duration blocked_for() const;

 private:
  const std::size_t most_;
  mutable std::mutex mutex_;
  std::condition_variable room_;
  std::condition_variable filled_;
  std::deque<Batch<Packet>> batches_;
  SteadyClock::time_point moved_ = SteadyClock::now();
  bool pushing_ = false;  ///< what was taken last has not gone on yet, since `moved_`
  bool closed_ = false;
};

}  // namespace millrace
