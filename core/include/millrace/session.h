#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "millrace/batch.h"
#include "millrace/time.h"

namespace millrace {

enum class Layer : std::uint8_t { l2, l4, l7 };

/// An IPv4 address is held in the first four bytes, the rest zero.
using Address = std::array<std::uint8_t, 16>;

/// The key of a session: both directions have the same. The lower endpoint (by address, then port,
/// compared as bytes) is `low`.
struct FiveTuple {
  Address low{};
  Address high{};
  std::uint16_t low_port = 0;
  std::uint16_t high_port = 0;
  std::uint8_t protocol = 0;  ///< IANA number: 6 TCP, 17 UDP
  std::uint8_t family = 4;    ///< 4 or 6

  friend auto operator<=>(const FiveTuple&, const FiveTuple&) = default;
  /// Compared for every packet: as bytes, without a call.
  friend bool operator==(const FiveTuple& a, const FiveTuple& b) noexcept {
    static_assert(std::has_unique_object_representations_v<FiveTuple>);
    return __builtin_memcmp(&a, &b, sizeof a) == 0;
  }
};

/// Why a session is due.
enum class Due : std::uint8_t {
  full,     ///< it holds as many packets as the splitter's `packets`
  timeout,  ///< `delay` has passed since its first packet
  end,      ///< the input ended
  evicted   ///< the session table was full and this was the oldest session
};

/// 16 bytes that name a session for ever: XXH3-128 of five-tuple, time of the first packet, epoch
/// and agent, so that the same capture gives the same ids (see docs/formats.md).
using SessionId = std::array<std::uint8_t, 16>;

/// What is known of a session apart from its packets.
struct SessionInfo {
  SessionId id{};
  FiveTuple key;
  bool src_is_low = true;  ///< the first packet was sent by the lower endpoint
  Due due = Due::full;
  std::uint32_t epoch = 0;  ///< how often the five-tuple had been done before, as far as remembered
  std::uint32_t packets = 0;  ///< until it was due
  Timestamp first_seen{};
  Timestamp last_seen{};
  std::uint64_t bytes = 0;          ///< on the wire
  std::uint64_t payload_bytes = 0;  ///< captured transport payload
  std::string_view agent;  ///< who captured it, in the batch's storage; empty: no name was given
};

/// One packet that a session holds.
struct SessionPacket {
  Timestamp time;
  const std::byte* data = nullptr;  ///< from the session's layer on
  std::uint32_t size = 0;
  std::uint16_t l4_offset = 0;  ///< where in `data` the transport header begins
  std::uint16_t l7_offset = 0;  ///< where in `data` the transport payload begins
  bool from_src = true;
  bool fragment = false;  ///< part of a fragmented IP packet, the first part included

  /// `layer` must not be below the session's.
  [[nodiscard]] std::span<const std::byte> from(Layer layer) const noexcept {
    const std::size_t skip = layer == Layer::l2 ? 0 : layer == Layer::l4 ? l4_offset : l7_offset;
    return std::span(data, size).subspan(skip);
  }
};

/// A session that is due, with the packets kept of it in arrival order.
struct Session {
  SessionInfo info;
  std::span<const SessionPacket> packets;  ///< in the batch's storage
  Layer layer = Layer::l7;                 ///< the lowest layer of which bytes were kept
};

[[nodiscard]] std::string_view to_string(Due due) noexcept;
[[nodiscard]] std::string to_hex(const SessionId& id);
/// RFC 5952 for IPv6, dotted for IPv4.
[[nodiscard]] std::string to_string(const Address& address, std::uint8_t family);
/// "tcp", "udp", else the number.
[[nodiscard]] std::string protocol_name(std::uint8_t protocol);
/// 2016-05-04T10:11:12.123456789Z (RFC 3339).
[[nodiscard]] std::string to_rfc3339(Timestamp time);

/// The id of a session, see SessionId.
[[nodiscard]] SessionId session_id(const FiveTuple& key, Timestamp first_seen, std::uint32_t epoch,
                                   std::string_view agent = {});

/// The endpoints as the first packet had them.
struct Endpoints {
  const Address& src;
  const Address& dst;
  std::uint16_t src_port;
  std::uint16_t dst_port;
};
[[nodiscard]] inline Endpoints endpoints(const SessionInfo& info) noexcept {
  const FiveTuple& key = info.key;
  return info.src_is_low ? Endpoints{key.low, key.high, key.low_port, key.high_port}
                         : Endpoints{key.high, key.low, key.high_port, key.low_port};
}

template <>
struct ItemTraits<Session> {
  static constexpr std::string_view name = "millrace.Session";
  static void describe(const Session& session, std::string& json);
};

}  // namespace millrace
