#include "millrace/packet_clock.h"

#include <array>
#include <utility>

namespace millrace {

namespace {

std::uint64_t apart(Timestamp a, Timestamp b) {
  const auto x = static_cast<std::uint64_t>(a.time_since_epoch().count());
  const auto y = static_cast<std::uint64_t>(b.time_since_epoch().count());
  return a < b ? y - x : x - y;
}

}  // namespace

/// Of those that voted: one with a wrong time among them does no harm.
Timestamp PacketClock::middle() const noexcept {
  std::array<Timestamp, kConfirmations + 1> sorted = vote_;
  for (std::size_t i = 1; i < votes_; ++i) {
    for (std::size_t k = i; k > 0 && sorted[k] < sorted[k - 1]; --k) {
      std::swap(sorted[k], sorted[k - 1]);
    }
  }
  return sorted[(votes_ - 1) / 2];
}

bool PacketClock::doubt(Timestamp time) noexcept {
  if (votes_ != 0 && apart(time, vote_[0]) >= apart(time, now_)) votes_ = 0;
  vote_[votes_++] = time;
  if (votes_ <= kConfirmations) return false;
  const Timestamp to = middle();
  votes_ = 0;
  const Duration ahead = between(now_, to);
  if (agreed_ >= kConfirmations && (ahead < Duration(0) || ahead > kSilence)) {
    ++jumps_;
    jumped_from_ = now_;
    jumped_to_ = to;
  }
  if (counts(ahead)) {
    move(to, ahead);
  } else {
    now_ = to;
  }
  agreed_ = kConfirmations;
  return true;
}

}  // namespace millrace
