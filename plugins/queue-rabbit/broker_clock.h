#pragma once

#include <chrono>
#include <cstdint>
#include <functional>

#include "rabbit_options.h"

namespace millrace {

/// The broker's clock, read by our steady clock: the time that receivers and analysers have in
/// common, whatever their own clocks say. It is known up to bounds, and used such that nothing is
/// due too early. One thread.
class BrokerClock {
 public:
  using Steady = std::chrono::steady_clock::time_point;
  using Milliseconds = std::chrono::milliseconds;

  /// Knows nothing of a broker: takes our wall clock for its.
  BrokerClock();

  /// The broker's clock said `stamp`, cut to whole seconds, between `sent` and `received`.
  void add(Steady sent, Steady received, std::chrono::seconds stamp);
  /// Our wall clock is ahead of `steady` by so much; where the stamps allow that, it is the more
  /// exact one and is taken. Returns how far it is ahead of what they allow.
  Milliseconds compare(Milliseconds wall);
  /// How much the broker's clock is ahead of the steady clock: between these.
  [[nodiscard]] Milliseconds earliest() const { return low_; }
  [[nodiscard]] Milliseconds latest() const { return high_; }

  /// What the broker's clock says at that time, in milliseconds since the epoch: for a header.
  [[nodiscard]] std::int64_t at(Steady time) const;
  /// When it says that.
  [[nodiscard]] Steady when(std::int64_t epoch_ms) const;

 private:
  Milliseconds low_;
  Milliseconds high_;
  bool known_ = false;
};

/// Our wall clock, as BrokerClock::compare wants it.
[[nodiscard]] BrokerClock::Milliseconds wall_clock();

/// Asks the broker for its time, by messages that it moves from one temporary queue to another and
/// so stamps, on a connection of its own: a broker in alarm reads nothing more from one that has
/// published. Takes 1.5 s at most where the clocks disagree. `ahead` is what `compare` returned.
/// Throws LinkLost.
[[nodiscard]] BrokerClock measure_clock(const RabbitOptions& options,
                                        const std::function<bool()>& stop,
                                        BrokerClock::Milliseconds& ahead);

}  // namespace millrace
