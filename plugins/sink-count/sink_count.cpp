#include "sink_count.h"

#include "millrace/plugin.h"

namespace millrace {

void CountSessions::open(Context& context) {
  sessions_ = &context.counter("sessions");
  packets_ = &context.counter("packets");
  bytes_ = &context.counter("bytes");
}

void CountSessions::write(Batch<Verdict>& in) {
  std::uint64_t packets = 0;
  std::uint64_t bytes = 0;
  for (const Verdict& verdict : in.items) {
    packets += verdict.session.packets;
    bytes += verdict.session.bytes;
  }
  sessions_->add(in.items.size());
  packets_->add(packets);
  bytes_->add(bytes);
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
