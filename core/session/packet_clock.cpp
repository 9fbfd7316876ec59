#include "millrace/packet_clock.h"

#include <algorithm>
#include <utility>

namespace millrace {

namespace {

std::uint64_t apart(Timestamp a, Timestamp b) {
  const auto x = static_cast<std::uint64_t>(a.time_since_epoch().count());
  const auto y = static_cast<std::uint64_t>(b.time_since_epoch().count());
  return a < b ? y - x : x - y;
}

}  // namespace

/// The packets that voted, in the order of their times. Those at the ends may have wrong ones.
PacketClock::Votes PacketClock::sorted() const noexcept {
  Votes votes = vote_;
  for (std::size_t i = 1; i < votes_; ++i) {
    for (std::size_t k = i; k > 0 && votes[k] < votes[k - 1]; --k) {
      std::swap(votes[k], votes[k - 1]);
    }
  }
  return votes;
}

Timestamp PacketClock::at_end() const noexcept {
  return votes_ > 1 ? std::max(now_, sorted()[votes_ - 2]) : now_;
}

bool PacketClock::doubt(Timestamp time) noexcept {
  if (votes_ != 0 && apart(time, vote_[0]) >= apart(time, now_)) votes_ = 0;
  vote_[votes_++] = time;
  if (votes_ <= kConfirmations) return false;
  const Timestamp to = sorted()[kConfirmations / 2];
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
