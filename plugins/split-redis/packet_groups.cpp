#include "packet_groups.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "millrace/packet_clock.h"

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

PacketGroup& PacketGroups::add(std::vector<DecodedPacket>& packets, std::uint32_t index,
                               std::string_view agent, std::uint64_t chunk) {
  DecodedPacket& packet = packets[index];
  const std::size_t mask = slots_.size() - 1;
  std::size_t at = hash_of(packet.flow) & mask;
  bool alone = true;
  for (; slots_[at] != kEmpty; at = (at + 1) & mask) {
    PacketGroup& other = groups_[slots_[at]];
    if (other.flow != packet.flow) continue;
    if (other.chunk == chunk) break;
    alone = other.alone = false;
  }
  if (slots_[at] == kEmpty) {
    slots_[at] = static_cast<std::uint32_t>(groups_.size());
    PacketGroup& group = groups_.emplace_back();
    group.flow = packet.flow;
    group.key = packet.decoded.key;
    group.agent = agent;
    group.chunk = chunk;
    group.alone = alone;
    group.first = index;
    group.bucket = bucket_of(packet.flow, settings_.buckets);
    group.earliest = group.latest = packet.packet.time;
  } else {
    PacketGroup& group = groups_[slots_[at]];
    DecodedPacket& before = packets[group.last];
    before.next = index;
    const Timestamp time = packet.packet.time;
    if (between(group.latest, time) > settings_.idle ||
        between(time, group.latest) > settings_.idle) {
      group.calm = false;
    }
    group.earliest = std::min(group.earliest, time);
    group.latest = std::max(group.latest, time);
  }
  PacketGroup& group = groups_[slots_[at]];
  if (opens(packet.decoded)) group.calm = false;
  group.last = index;
  ++group.count;
  group.bytes += packet.packet.length;
  group.payload += packet.decoded.l7_size;
  group.record_bytes +=
      kRecordHead + packet.decoded.l7_offset + packet.decoded.l7_size - base(packet.decoded);
  return group;
}

void PacketGroups::append_head(std::string& to, const std::vector<DecodedPacket>& packets,
                               const PacketGroup& group, std::uint8_t flags,
                               const KnownFlow* known) const {
  constexpr std::uint8_t kCalm = 2;
  constexpr std::uint8_t kChunked = 4;
  constexpr std::uint8_t kKnown = 64;
  const DecodedPacket& first = packets[group.first];
  const DecodedPacket& last = packets[group.last];
  to += view(group.flow);
  append_number(
      to, static_cast<std::uint8_t>((first.decoded.src_is_low ? kSrcIsLow : 0) |
                                    (group.calm ? kCalm : 0) | (group.chunk == 0 ? 0 : kChunked) |
                                    flags | (known == nullptr ? 0 : kKnown)));
  append_number(to, group.count);
  append_time(to, first.packet.time);
  append_time(to, group.earliest);
  append_time(to, group.latest);
  append_double(to, group.bytes);
  append_double(to, group.payload);
  append_number(to, first.packet.number);
  append_number(to, last.packet.number);
  append_number(to, group.chunk);
  if (known != nullptr) {
    const Unrecorded& more = known->unrecorded;
    append_number(to, more.elements);
    append_number(to, known->elements);
    append_number(to, more.packets);
    append_double(to, more.bytes);
    append_double(to, more.payload);
    append_time(to, more.latest);
    append_time(to, known->first);
    append_number(to, static_cast<std::uint32_t>(more.number));
    append_number(to, more.chunk);
  }
  append_five_tuple(to, group.key);
  to += group.agent;
}

void PacketGroups::append_state(std::string& to, const std::vector<DecodedPacket>& packets,
                                const PacketGroup& group) const {
  constexpr std::uint8_t kOpen = 1;
  constexpr std::uint8_t kLow = 4;
  const DecodedPacket& first = packets[group.first];
  const DecodedPacket& last = packets[group.last];
  append_number(to, kStateVersion);
  append_number(to, static_cast<std::uint8_t>(kOpen | (first.decoded.src_is_low ? kLow : 0)));
  append_number(to, static_cast<std::uint8_t>(settings_.layer));
  append_number(to, std::uint32_t{0});  // epoch
  append_number(to, group.count);
  append_time(to, first.packet.time);
  append_time(to, group.latest);
  append_double(to, group.bytes);
  append_double(to, group.payload);
  append_time(to, group.latest);
  append_double(to, 0);                 // no lease
  append_number(to, std::uint32_t{0});  // the next one who looks at it sets its expiry anew
  append_number(to, settings_.keep_done);
  append_number(to, std::uint64_t{0});  // token
  append_number(to, std::uint32_t{1});  // elements
  append_number(to, settings_.packets);
  append_double(to, settings_.delay.count());
  if (group.chunk == 0) return;
  append_number(to, group.chunk);
  append_number(to, last.packet.number);
}

void PacketGroups::append_event(std::string& to, const std::vector<DecodedPacket>& packets,
                                const PacketGroup& group) {
  append_number(to, static_cast<std::uint8_t>(Due::timeout));
  append_session_mark(to, 0, packets[group.first].packet.time);
  append_number(to, static_cast<std::uint16_t>(kFiveTupleBytes + group.agent.size()));
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
    record.length = packet.packet.length;
    record.number = packet.packet.number;
    record.chunk = group.chunk;
    append_record(to, record);
    index = packet.next;
  }
}

}  // namespace millrace
