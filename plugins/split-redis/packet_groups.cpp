#include "packet_groups.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace millrace {

namespace {

constexpr std::uint32_t kEmpty = 0xFFFFFFFF;

bool opens(const Decoded& decoded) {
  return decoded.key.protocol == 6 && (decoded.tcp_flags & (kTcpSyn | kTcpAck)) == kTcpSyn;
}

std::uint64_t hash_of(const FlowKey& flow) {
  std::uint64_t hash = 0;
  std::memcpy(&hash, flow.data(), sizeof hash);
  return hash;
}

}  // namespace

void PacketGroups::clear(std::size_t packets) {
  groups_.clear();
  const std::size_t slots = std::bit_ceil(std::max<std::size_t>(packets * 2, 64));
  slots_.assign(slots, kEmpty);
}

std::uint32_t PacketGroups::base(const Decoded& decoded) const {
  return settings_.layer == Layer::l2   ? 0
         : settings_.layer == Layer::l4 ? decoded.l4_offset
                                        : decoded.l7_offset;
}

void PacketGroups::add(std::vector<DecodedPacket>& packets, std::uint32_t index,
                       std::string_view agent, std::uint64_t chunk) {
  DecodedPacket& packet = packets[index];
  const std::size_t mask = slots_.size() - 1;
  std::size_t at = hash_of(packet.flow) & mask;
  while (slots_[at] != kEmpty &&
         (groups_[slots_[at]].flow != packet.flow || groups_[slots_[at]].chunk != chunk)) {
    at = (at + 1) & mask;
  }
  if (slots_[at] == kEmpty) {
    slots_[at] = static_cast<std::uint32_t>(groups_.size());
    PacketGroup& group = groups_.emplace_back();
    group.flow = packet.flow;
    group.key = packet.decoded.key;
    group.agent = agent;
    group.chunk = chunk;
    group.first = index;
    group.bucket = bucket_of(packet.flow, settings_.buckets);
    group.latest = packet.packet.time;
  } else {
    PacketGroup& group = groups_[slots_[at]];
    DecodedPacket& before = packets[group.last];
    before.next = index;
    if (packet.clock - before.clock > settings_.idle) group.calm = false;
    group.latest = std::max(group.latest, packet.packet.time);
  }
  PacketGroup& group = groups_[slots_[at]];
  if (opens(packet.decoded)) group.calm = false;
  group.last = index;
  ++group.count;
  group.bytes += packet.packet.length;
  group.payload += packet.decoded.l7_size;
  group.record_bytes +=
      kRecordHead + packet.decoded.l7_offset + packet.decoded.l7_size - base(packet.decoded);
}

void PacketGroups::append_head(std::string& to, const std::vector<DecodedPacket>& packets,
                               const PacketGroup& group, bool thin) const {
  constexpr std::uint8_t kCalm = 2;
  constexpr std::uint8_t kChunked = 4;
  constexpr std::uint8_t kThin = 8;
  const DecodedPacket& first = packets[group.first];
  const DecodedPacket& last = packets[group.last];
  to += view(group.flow);
  append_number(to, static_cast<std::uint8_t>(
                        (first.decoded.src_is_low ? kSrcIsLow : 0) | (group.calm ? kCalm : 0) |
                        (group.chunk == 0 ? 0 : kChunked) | (thin ? kThin : 0)));
  append_number(to, group.count);
  append_time(to, first.clock);
  append_time(to, last.clock);
  append_time(to, first.packet.time);
  append_time(to, group.latest);
  append_number(to, std::bit_cast<std::uint64_t>(static_cast<double>(group.bytes)));
  append_number(to, std::bit_cast<std::uint64_t>(static_cast<double>(group.payload)));
  append_number(to, first.packet.number);
  append_number(to, last.packet.number);
  append_number(to, group.chunk);
  append_five_tuple(to, group.key);
  to += group.agent;
}

void PacketGroups::append_records(std::string& to, const std::vector<DecodedPacket>& packets,
                                  const PacketGroup& group) const {
  for (std::uint32_t index = group.first, left = group.count; left != 0; --left) {
    const DecodedPacket& packet = packets[index];
    const Decoded& decoded = packet.decoded;
    const std::uint32_t from = base(decoded);
    Record record;
    record.packet.time = packet.packet.time;
    record.packet.data = packet.packet.data + from;
    record.packet.size = decoded.l7_offset + decoded.l7_size - from;
    record.packet.l4_offset = static_cast<std::uint16_t>(std::max(decoded.l4_offset, from) - from);
    record.packet.l7_offset = static_cast<std::uint16_t>(decoded.l7_offset - from);
    record.flags = static_cast<std::uint8_t>((decoded.src_is_low ? kSrcIsLow : 0) |
                                             (decoded.fragment ? kFragment : 0) |
                                             (opens(decoded) ? kOpens : 0));
    record.clock = packet.clock;
    record.length = packet.packet.length;
    record.number = packet.packet.number;
    append_record(to, record);
    index = packet.next;
  }
}

}  // namespace millrace
