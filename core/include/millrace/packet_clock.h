#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "millrace/time.h"

namespace millrace {

/// A watermark that says: what came before has ended, and what comes next does not continue it (a
/// folder of captures that have nothing to do with one another). Whoever keeps state by time ends
/// and forgets it.
inline constexpr Timestamp kStreamEnds = Timestamp::max();

/// `later` - `earlier`, for times that may be of any year: at the ends of what a Duration holds
/// where it is more.
[[nodiscard]] constexpr Duration between(Timestamp earlier, Timestamp later) noexcept {
  std::int64_t difference = 0;
  if (__builtin_sub_overflow(later.time_since_epoch().count(), earlier.time_since_epoch().count(),
                             &difference)) {
    return later > earlier ? Duration::max() : Duration::min();
  }
  return Duration(difference);
}

/// The time of a stream of packets, for everything that has to happen although no packet comes:
/// sessions that stay silent, watermarks. It follows the bulk of the packets and not each of them,
/// since one packet may bear any time.
///
/// A packet that lies up to `kStep` ahead moves it. One that lies farther ahead, or more than
/// `kStep` behind, is a candidate: packets that are nearer to the candidate than to the clock
/// confirm it, one that is nearer to the clock refutes it. After `kConfirmations` the clock goes to
/// the middle one of them. Threads: one.
class PacketClock {
 public:
  static constexpr Duration kStep = std::chrono::seconds(1);
  static constexpr std::uint32_t kConfirmations = 8;
  /// How far packets come out of order, so that a packet's time says nothing of those that are
  /// later than this much before it.
  static constexpr Duration kLate = std::chrono::seconds(1);
  /// A silence on the wire looks like a jump ahead. From here on it counts as one.
  static constexpr Duration kSilence = std::chrono::hours(1);
  /// No jump counts as more time than this: some clocks jump by decades whenever they start.
  static constexpr Duration kLongest = std::chrono::hours(24 * 30);

  /// A packet. True: the clock has moved.
  bool see(Timestamp time) noexcept {
    if (now_ == kNoTime) {
      now_ = time;
      return true;
    }
    const Duration ahead = between(now_, time);
    if (ahead <= Duration(0) && ahead >= -kStep) {
      agree();
      return false;
    }
    if (ahead > Duration(0) && ahead <= kStep) {
      agree();
      move(time, ahead);
      return true;
    }
    return doubt(time);
  }

  /// A watermark: of whoever gave the packets, or of a clock on the wall. A later one is believed.
  bool hear(Timestamp watermark) noexcept {
    if (watermark == kNoTime || watermark == kStreamEnds) return false;
    // Saturates: a watermark may be any.
    const Timestamp time =
        watermark > kStreamEnds - kLate ? kStreamEnds - Duration(1) : watermark + kLate;
    const Duration ahead = now_ == kNoTime ? Duration(0) : between(now_, time);
    if (now_ != kNoTime && ahead <= Duration(0)) return ahead < -kStep && doubt(time);
    if (now_ == kNoTime) {
      now_ = time;
    } else {
      move(time, ahead);
    }
    votes_ = 0;
    agreed_ = kConfirmations;
    return true;
  }

  /// kNoTime before the first packet. Falls when a jump back is followed.
  [[nodiscard]] Timestamp now() const noexcept { return now_; }
  /// No packet before this will come, as far as can be told.
  [[nodiscard]] Timestamp watermark() const noexcept {
    return now_ < kNoTime + kLate ? kNoTime : now_ - kLate;
  }
  /// How much time has passed, all in all: never falls, and stays through a jump back. What is
  /// measured by it goes on whatever happens to the time of day.
  [[nodiscard]] Duration elapsed() const noexcept { return elapsed_; }
  /// `now` at the end of the packets: one ahead of it counts if another one confirmed it.
  [[nodiscard]] Timestamp at_end() const noexcept;
  /// Jumps followed: back, or ahead by more than `kSilence`.
  [[nodiscard]] std::uint64_t jumps() const noexcept { return jumps_; }
  /// The last of them: from where, to where.
  [[nodiscard]] Timestamp jumped_from() const noexcept { return jumped_from_; }
  [[nodiscard]] Timestamp jumped_to() const noexcept { return jumped_to_; }

  /// What comes next does not continue what came before: as new, but for the number of jumps.
  void restart() noexcept {
    now_ = kNoTime;
    elapsed_ = Duration(0);
    votes_ = agreed_ = 0;
  }

 private:
  void agree() noexcept {
    votes_ = 0;
    if (agreed_ < kConfirmations) ++agreed_;
  }
  /// Where the first packets were wrong ones, no time has passed since them.
  [[nodiscard]] bool counts(Duration ahead) const noexcept {
    return ahead > Duration(0) && (ahead <= kSilence || agreed_ >= kConfirmations);
  }
  static Duration sum(Duration a, Duration b) noexcept {
    return b > Duration::max() - a ? Duration::max() : a + b;
  }
  void move(Timestamp time, Duration ahead) noexcept {
    now_ = time;
    elapsed_ = sum(elapsed_, std::min(ahead, kLongest));
  }

  using Votes = std::array<Timestamp, kConfirmations + 1>;
  [[nodiscard]] Votes sorted() const noexcept;
  bool doubt(Timestamp time) noexcept;

  Timestamp now_ = kNoTime;
  Duration elapsed_{};
  Votes vote_{};  ///< the candidate, and what confirmed it
  std::uint32_t votes_ = 0;
  std::uint32_t agreed_ = 0;  ///< packets that were near the clock, as far as it matters
  std::uint64_t jumps_ = 0;
  Timestamp jumped_from_ = kNoTime;
  Timestamp jumped_to_ = kNoTime;
};

}  // namespace millrace
