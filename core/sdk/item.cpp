#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <system_error>
#include <utility>

#include <arpa/inet.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "millrace/change.h"
#include "millrace/json.h"
#include "millrace/packet.h"
#include "millrace/session.h"
#include "millrace/ticket.h"
#include "millrace/verdict.h"

namespace millrace {

namespace {

template <class T>
std::uint8_t* put_big_endian(std::uint8_t* to, T value) {
  for (std::size_t i = sizeof(T); i-- > 0;) *to++ = static_cast<std::uint8_t>(value >> (8 * i));
  return to;
}

void describe_members(const SessionInfo& info, json::Object& object) {
  const Endpoints ends = endpoints(info);
  object.member("session", to_hex(info.id));
  object.member("agent", info.agent);
  object.member("protocol", protocol_name(info.key.protocol));
  object.member("src", to_string(ends.src, info.key.family));
  object.member("src_port", ends.src_port);
  object.member("dst", to_string(ends.dst, info.key.family));
  object.member("dst_port", ends.dst_port);
  object.member("epoch", info.epoch);
  object.member("first_seen", to_rfc3339(info.first_seen));
  object.member("last_seen", to_rfc3339(info.last_seen));
  object.member("packets", info.packets);
  object.member("bytes", info.bytes);
  object.member("payload_bytes", info.payload_bytes);
  object.member("reason", to_string(info.due));
}

/// Four decimals; null for what is no number.
void append_probability(std::string& json, float value) {
  std::array<char, 64> text;
  const auto end =
      std::to_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed, 4);
  if (std::isfinite(value) && end.ec == std::errc()) {
    json.append(text.data(), end.ptr);
  } else {
    json += "null";
  }
}

}  // namespace

std::string_view to_string(Due due) noexcept {
  static constexpr std::array<std::string_view, 4> kNames = {"full", "timeout", "end", "evicted"};
  return kNames[static_cast<std::size_t>(due)];
}

std::string to_hex(const SessionId& id) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  text.reserve(2 * id.size());
  for (const std::uint8_t byte : id) {
    text += kDigits[byte >> 4U];
    text += kDigits[byte & 0xFU];
  }
  return text;
}

std::string to_string(const Address& address, std::uint8_t family) {
  char text[INET6_ADDRSTRLEN];
  const char* end =
      ::inet_ntop(family == 6 ? AF_INET6 : AF_INET, address.data(), text, sizeof text);
  return end == nullptr ? std::string("?") : std::string(text);
}

std::string protocol_name(std::uint8_t protocol) {
  if (protocol == IPPROTO_TCP) return "tcp";
  if (protocol == IPPROTO_UDP) return "udp";
  return std::to_string(protocol);
}

std::string to_rfc3339(Timestamp time) {
  const auto seconds = std::chrono::floor<std::chrono::seconds>(time);
  const auto days = std::chrono::floor<std::chrono::days>(time);
  const std::chrono::year_month_day date(days);
  const std::chrono::hh_mm_ss clock(seconds - days);
  char text[48];
  const int size = std::snprintf(
      text, sizeof text, "%04d-%02u-%02uT%02d:%02d:%02d.%09dZ", static_cast<int>(date.year()),
      static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
      static_cast<int>(clock.hours().count()), static_cast<int>(clock.minutes().count()),
      static_cast<int>(clock.seconds().count()), static_cast<int>((time - seconds).count()));
  return {text, static_cast<std::size_t>(size)};
}

SessionId session_id(const FiveTuple& key, Timestamp first_seen, std::uint32_t epoch,
                     std::string_view agent) {
  // The layout is documented in docs/formats.md and must never change.
  std::array<std::uint8_t, 2 + 16 + 16 + 2 + 2 + 8 + 4> bytes{};
  std::uint8_t* to = bytes.data();
  *to++ = key.protocol;
  *to++ = key.family;
  to = std::copy(key.low.begin(), key.low.end(), to);
  to = std::copy(key.high.begin(), key.high.end(), to);
  to = put_big_endian(to, key.low_port);
  to = put_big_endian(to, key.high_port);
  to = put_big_endian(to, static_cast<std::uint64_t>(first_seen.time_since_epoch().count()));
  put_big_endian(to, epoch);
  XXH128_hash_t hash{};
  if (agent.empty()) {
    hash = XXH3_128bits(bytes.data(), bytes.size());
  } else {
    std::string named(bytes.begin(), bytes.end());
    named += agent;
    hash = XXH3_128bits(named.data(), named.size());
  }
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, hash);
  SessionId id;
  std::copy(std::begin(canonical.digest), std::end(canonical.digest), id.begin());
  return id;
}

void ItemTraits<Packet>::describe(const Packet& packet, std::string& json) {
  json::Object object(json);
  object.member("time", to_rfc3339(packet.time));
  object.member("link_type", static_cast<std::uint16_t>(packet.link));
  object.member("length", packet.length);
  std::string& bytes = object.key("bytes");
  bytes += '"';
  json::append_base64(bytes, packet.bytes());
  bytes += '"';
}

void ItemTraits<Session>::describe(const Session& session, std::string& json) {
  json::Object object(json);
  describe_members(session.info, object);
  object.member("kept_packets", session.packets.size());
}

void ItemTraits<Verdict>::describe(const Verdict& verdict, std::string& json) {
  json::Object object(json);
  describe_members(verdict.session, object);
  object.member("label", verdict.label);
  append_probability(object.key("confidence"), verdict.confidence);
  object.member("model", verdict.model);
  if (verdict.probabilities.empty()) return;
  json::Object classes(object.key("probabilities"));
  for (std::size_t i = 0; i < verdict.probabilities.size(); ++i) {
    const bool named = i < verdict.class_names.size();
    append_probability(classes.key(named ? verdict.class_names[i] : std::to_string(i)),
                       verdict.probabilities[i]);
  }
}

void ItemTraits<Ticket>::describe(const Ticket& ticket, std::string& json) {
  json::Object object(json);
  object.member("session", to_hex(ticket.id));
  object.member("protocol", protocol_name(ticket.key.protocol));
  object.member("low", to_string(ticket.key.low, ticket.key.family));
  object.member("low_port", ticket.key.low_port);
  object.member("high", to_string(ticket.key.high, ticket.key.family));
  object.member("high_port", ticket.key.high_port);
  object.member("epoch", ticket.epoch);
  object.member("agent", ticket.agent);
  object.member("why", to_string(ticket.why));
}

namespace {

void append_row(std::string& json, const Change::Row& row) {
  json::Object object(json);
  for (const auto& [column, value] : row) {
    if (value) {
      object.member(column, *value);
    } else {
      object.raw(column, "null");
    }
  }
}

}  // namespace

void ItemTraits<Change>::describe(const Change& change, std::string& json) {
  static constexpr std::array<std::string_view, 3> kKinds = {"insert", "update", "delete"};
  json::Object object(json);
  object.member("kind", kKinds[static_cast<std::size_t>(change.kind)]);
  object.member("database", change.database);
  object.member("table", change.table);
  append_row(object.key("before"), change.before);
  append_row(object.key("after"), change.after);
}

Batch<Verdict> unlabelled(Batch<Session>& sessions) {
  Batch<Verdict> verdicts;
  verdicts.watermark = sessions.watermark;
  verdicts.receipt = std::move(sessions.receipt);
  verdicts.storage = std::move(sessions.storage);
  verdicts.storage_bytes = sessions.storage_bytes;
  verdicts.items.reserve(sessions.items.size());
  for (const Session& session : sessions.items) {
    verdicts.items.emplace_back().session = session.info;
  }
  return verdicts;
}

}  // namespace millrace
