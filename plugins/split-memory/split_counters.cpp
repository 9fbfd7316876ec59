#include "split_counters.h"

#include <utility>

#include <fmt/format.h>

namespace millrace {

SessionCounts difference(const SessionCounts& now, const SessionCounts& before) {
  SessionCounts counts;
  counts.packets = now.packets - before.packets;
  counts.stored = now.stored - before.stored;
  counts.after_due = now.after_due - before.after_due;
  counts.joined_fragments = now.joined_fragments - before.joined_fragments;
  counts.lost_fragments = now.lost_fragments - before.lost_fragments;
  for (std::size_t i = 0; i < kDecodeKinds; ++i) {
    counts.undecodable[i] = now.undecodable[i] - before.undecodable[i];
  }
  counts.sessions = now.sessions - before.sessions;
  counts.forgotten = now.forgotten - before.forgotten;
  counts.clock_jumps = now.clock_jumps - before.clock_jumps;
  counts.jumped_from = now.jumped_from;
  counts.jumped_to = now.jumped_to;
  return counts;
}

void SplitCounters::open(Context& context) {
  context_ = &context;
  sessions_ = &context.counter("sessions");
  fragments_ = &context.counter("joined-fragments");
  forgotten_ = &context.counter("forgotten");
  clock_jumps_ = &context.counter("clock-jumps");
}

void SplitCounters::add(const SessionCounts& more) {
  sessions_->add(more.sessions);
  fragments_->add(more.joined_fragments);
  forgotten_->add(more.forgotten);
  if (more.clock_jumps != 0) {
    clock_jumps_->add(more.clock_jumps);
    if (!std::exchange(told_of_jump_, true)) {
      context_->warning(fmt::format(
          "the time of the packets jumped from {} to {}; sessions go by the times of their own "
          "packets. Further jumps are only counted, as clock-jumps",
          to_rfc3339(more.jumped_from), to_rfc3339(more.jumped_to)));
    }
  }
  const auto drop = [this](std::string_view reason, std::uint64_t n) {
    if (n != 0) context_->dropped(reason, n);
  };
  drop("after-due", more.after_due);
  drop("lost-fragment", more.lost_fragments);
  for (std::size_t kind = 0; kind < more.undecodable.size(); ++kind) {
    drop(to_string(static_cast<Decode>(kind)), more.undecodable[kind]);
  }
}

}  // namespace millrace
