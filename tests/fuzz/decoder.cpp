// Bytes as a row of packets: link type, time step and size before each. Decoder, fragment cache and
// session table must stay inside what they are given and account for every packet.

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "millrace/features.h"
#include "millrace/session_table.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace millrace;
  constexpr LinkType kLinks[] = {LinkType::ethernet,     LinkType::raw,  LinkType::bsd_null,
                                 LinkType::bsd_loop,     LinkType::ipv6, LinkType::linux_cooked,
                                 LinkType::linux_cooked2};
  SessionTable table({.packets = 3, .max_sessions = 5, .max_bytes = 4096, .layer = Layer::l2});
  std::uint64_t emitted = 0;
  const SessionTable::Emit emit = [&](const Session& session, std::uint64_t) {
    emitted += session.info.packets;
    std::uint8_t row[64];
    for (const Layer layer : {Layer::l2, Layer::l4, Layer::l7}) {
      extract_features(session, {sizeof row, layer, 0, 1, true}, row);
    }
  };
  std::uint64_t packets = 0;
  Timestamp now{};
  while (size >= 3) {
    const std::size_t length = std::min<std::size_t>(data[2], size - 3);
    // A block of its own, so that a byte too much is seen.
    std::vector<std::byte> bytes(length);
    if (length != 0) std::memcpy(bytes.data(), data + 3, length);
    now += std::chrono::seconds(data[1]);
    Packet packet;
    packet.time = now;
    packet.data = bytes.data();
    packet.captured = packet.length = static_cast<std::uint32_t>(length);
    packet.link = kLinks[data[0] % std::size(kLinks)];
    table.add(std::span(&packet, 1), 0, emit);
    ++packets;
    data += 3 + length;
    size -= 3 + length;
  }
  table.flush(emit);
  const SessionCounts& counts = table.counts();
  std::uint64_t sum = counts.stored + counts.after_due + counts.lost_fragments;
  for (const std::uint64_t n : counts.undecodable) sum += n;
  if (sum != packets || emitted != counts.stored || table.bytes_held() != 0) std::abort();
  return 0;
}
