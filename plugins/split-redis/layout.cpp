#include "layout.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <random>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace millrace {

namespace {

template <class Key>
FlowKey named(const Key& key, std::string_view agent) {
  static_assert(std::has_unique_object_representations_v<Key>);
  XXH128_hash_t hash{};
  if (agent.empty()) {
    hash = XXH3_128bits(&key, sizeof key);
  } else {
    const XXH128_hash_t name = XXH3_128bits(agent.data(), agent.size());
    hash = XXH3_128bits_withSeed(&key, sizeof key, name.low64);
    hash.high64 ^= name.high64;
  }
  FlowKey flow{};
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, hash);
  std::memcpy(flow.data(), canonical.digest, flow.size());
  return flow;
}

}  // namespace

FlowKey flow_key(const FiveTuple& key, std::string_view agent) { return named(key, agent); }

FlowKey fragment_id(FragmentKey key, std::string_view agent) {
  key.agent = 0;  // a number of this process only
  return named(key, agent);
}

std::uint64_t chunk_hash(std::string_view chunk) {
  if (chunk.empty()) return 0;
  return std::max<std::uint64_t>(XXH3_64bits(chunk.data(), chunk.size()), 1);
}

std::string random_bytes(std::size_t size) {
  std::random_device device;
  std::string bytes(size, 0);
  for (char& byte : bytes) byte = static_cast<char>(device() & 0xFFU);
  return bytes;
}

std::string_view view(const FlowKey& key) {
  return {reinterpret_cast<const char*>(key.data()), key.size()};
}

void append_five_tuple(std::string& to, const FiveTuple& key) {
  append_number(to, key.protocol);
  append_number(to, key.family);
  to.append(reinterpret_cast<const char*>(key.low.data()), key.low.size());
  to.append(reinterpret_cast<const char*>(key.high.data()), key.high.size());
  append_number(to, key.low_port);
  append_number(to, key.high_port);
}

std::string_view LayoutReader::take(std::size_t size) {
  if (bytes_.size() < size) {
    good_ = false;
    bytes_ = {};
    return {};
  }
  const std::string_view taken = bytes_.substr(0, size);
  bytes_.remove_prefix(size);
  return taken;
}

FiveTuple LayoutReader::five_tuple() {
  FiveTuple key;
  key.protocol = number<std::uint8_t>();
  key.family = number<std::uint8_t>();
  const auto low = take(key.low.size());
  std::ranges::copy(low, key.low.begin());
  const auto high = take(key.high.size());
  std::ranges::copy(high, key.high.begin());
  key.low_port = number<std::uint16_t>();
  key.high_port = number<std::uint16_t>();
  return key;
}

void append_record(std::string& to, const Record& record) {
  const SessionPacket& packet = record.packet;
  append_number(to, static_cast<std::uint32_t>(kRecordHead + packet.size));
  append_number(to, record.flags);
  append_number(to, packet.l4_offset);
  append_number(to, packet.l7_offset);
  append_time(to, packet.time);
  append_number(to, record.length);
  append_number(to, record.number);
  append_number(to, record.chunk);
  if (packet.size != 0) to.append(reinterpret_cast<const char*>(packet.data), packet.size);
}

bool read_records(std::string_view element, std::vector<Record>& to) {
  LayoutReader reader(element);
  while (reader.left() != 0) {
    const auto size = reader.number<std::uint32_t>();
    Record record;
    record.flags = reader.number<std::uint8_t>();
    SessionPacket& packet = record.packet;
    packet.l4_offset = reader.number<std::uint16_t>();
    packet.l7_offset = reader.number<std::uint16_t>();
    packet.time = reader.time();
    record.length = reader.number<std::uint32_t>();
    record.number = reader.number<std::uint32_t>();
    record.chunk = reader.number<std::uint64_t>();
    if (!reader.good() || size < kRecordHead) return false;
    const std::string_view data = reader.take(size - kRecordHead);
    if (!reader.good() || packet.l7_offset > data.size() || packet.l4_offset > packet.l7_offset) {
      return false;
    }
    packet.data = reinterpret_cast<const std::byte*>(data.data());
    packet.size = static_cast<std::uint32_t>(data.size());
    packet.fragment = (record.flags & kFragment) != 0;
    to.push_back(record);
  }
  return true;
}

namespace {
double read_double(LayoutReader& reader) {
  return std::bit_cast<double>(reader.number<std::uint64_t>());
}
}  // namespace

std::optional<SessionHead> read_head(std::string_view state) {
  LayoutReader reader(state);
  const auto version = reader.number<std::uint8_t>();
  const auto flags = reader.number<std::uint8_t>();
  const auto layer = reader.number<std::uint8_t>();
  SessionHead head;
  head.open = (flags & 1U) != 0;
  head.done = (flags & 2U) != 0;
  head.src_is_low = (flags & 4U) != 0;
  head.full = (flags & 8U) != 0;
  head.layer = static_cast<Layer>(layer);
  head.epoch = reader.number<std::uint32_t>();
  head.packets = reader.number<std::uint32_t>();
  head.first_seen = reader.time();
  head.last_seen = reader.time();
  head.bytes = static_cast<std::uint64_t>(read_double(reader));
  head.payload_bytes = static_cast<std::uint64_t>(read_double(reader));
  if (!reader.good() || version != kStateVersion || layer > static_cast<std::uint8_t>(Layer::l7)) {
    return std::nullopt;
  }
  return head;
}

void append_session_mark(std::string& to, std::uint32_t epoch, Timestamp first_seen) {
  append_number(to, epoch);
  append_time(to, first_seen);
}

namespace {
/// All but the reason.
std::optional<Ticket> read_ticket(LayoutReader& reader) {
  Ticket ticket;
  ticket.epoch = reader.number<std::uint32_t>();
  const Timestamp first_seen = reader.time();
  // Five-tuple and agent, as the group's head had them.
  const auto size = reader.number<std::uint16_t>();
  if (size < kFiveTupleBytes) return std::nullopt;
  ticket.key = reader.five_tuple();
  ticket.agent = reader.take(size - kFiveTupleBytes);
  ticket.id = session_id(ticket.key, first_seen, ticket.epoch, ticket.agent);
  if (!reader.good()) return std::nullopt;
  return ticket;
}
}  // namespace

std::optional<Ticket> read_member(std::string_view member) {
  LayoutReader reader(member);
  auto ticket = read_ticket(reader);
  if (ticket) ticket->why = Due::timeout;
  return ticket;
}

std::optional<BatchReply> read_reply(std::string_view bytes) {
  LayoutReader reader(bytes);
  BatchReply reply;
  reply.stored = reader.number<std::uint32_t>();
  reply.after_due = reader.number<std::uint32_t>();
  reply.repeated = reader.number<std::uint32_t>();
  reply.taken_back = reader.number<std::uint32_t>();
  reply.begun = reader.number<std::uint32_t>();
  reply.wrong_type = reader.number<std::uint32_t>();
  reply.groups = reader.take(reader.number<std::uint32_t>());
  const auto open = std::ranges::count(reply.groups, char{kGroupOpen});
  reply.standings.reserve(static_cast<std::size_t>(open));
  for (auto left = open; left != 0 && reader.good(); --left) {
    Standing& standing = reply.standings.emplace_back();
    standing.packets = reader.number<std::uint32_t>();
    standing.elements = reader.number<std::uint32_t>();
    standing.first = reader.time();
    standing.applied = std::int64_t{reader.number<std::uint32_t>()} - 1;
  }
  while (reader.good() && reader.left() != 0) {
    const auto why = reader.number<std::uint8_t>();
    auto ticket = read_ticket(reader);
    if (!ticket) return std::nullopt;
    ticket->why = static_cast<Due>(why);
    reply.tickets.push_back(*ticket);
  }
  if (!reader.good()) return std::nullopt;
  return reply;
}

}  // namespace millrace
