#include "sink_count.h"

#include <cstdint>
#include <string>

#include "millrace/plugin.h"

namespace millrace {

void CountSessions::open(Context& context) {
  sessions_ = &context.counter("sessions");
  packets_ = &context.counter("packets");
  bytes_ = &context.counter("bytes");
  for (const Due due : kReasons) {
    reasons_[static_cast<std::size_t>(due)] =
        &context.counter("reason-" + std::string(to_string(due)));
  }
}

void CountSessions::write(Batch<Verdict>& in) {
  std::uint64_t packets = 0;
  std::uint64_t bytes = 0;
  // The counters are shared between workers: one addition for a batch, not for an item.
  std::array<std::uint64_t, kReasons.size()> reasons{};
  for (const Verdict& verdict : in.items) {
    ++reasons[static_cast<std::size_t>(verdict.session.due)];
    packets += verdict.session.packets;
    bytes += verdict.session.bytes;
  }
  sessions_->add(in.items.size());
  packets_->add(packets);
  bytes_->add(bytes);
  for (std::size_t i = 0; i < reasons.size(); ++i) {
    if (reasons[i] != 0) reasons_[i]->add(reasons[i]);
  }
}

void CountPackets::open(Context& context) {
  packets_ = &context.counter("packets");
  bytes_ = &context.counter("bytes");
}

void CountPackets::write(Batch<Packet>& in) {
  std::uint64_t bytes = 0;
  for (const Packet& packet : in.items) bytes += packet.length;
  packets_->add(in.items.size());
  bytes_->add(bytes);
}

}  // namespace millrace

using namespace millrace;

MILLRACE_PLUGIN("sink-count", MILLRACE_VERSION,
                sink<CountSessions>("sink-count", "Counts sessions and throws them away")
                    .accepts<Session>(&unlabelled),
                sink<CountPackets>("packets", "Counts packets and throws them away"))
