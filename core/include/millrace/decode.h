#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "millrace/packet.h"
#include "millrace/session.h"

namespace millrace {

/// What a packet is to a session table. All but `transport` and `later_fragment` name the reason
/// why it belongs to no session.
enum class Decode : std::uint8_t {
  transport,       ///< TCP or UDP, both ports captured
  later_fragment,  ///< no ports of its own: belongs to the session of its first fragment
  link_type,       ///< link type that is not decoded
  not_ip,          ///< ARP, LLC, PPPoE, MPLS, ...
  not_tcp_udp,     ///< ICMP, ESP, SCTP, a tunnel, ...
  truncated,       ///< captured bytes end inside a header
  malformed,       ///< a header contradicts itself
};
inline constexpr std::size_t kDecodeKinds = 7;

/// The name under which such packets are counted: "link-type", "not-ip", ...
[[nodiscard]] std::string_view to_string(Decode decode) noexcept;

/// Identifies the fragments of one IP packet (RFC 791 section 3.2, RFC 8200 section 4.5).
struct FragmentKey {
  Address src{};
  Address dst{};
  std::uint32_t id = 0;
  std::uint8_t protocol = 0;
  std::uint8_t family = 4;
  std::uint16_t agent = 0;  ///< for tables that keep agents apart; no padding: hashed as bytes
  friend bool operator==(const FragmentKey&, const FragmentKey&) = default;
};

/// What the first fragment of an IP packet says that the later ones need.
struct FirstFragment {
  FiveTuple key;
  bool src_is_low = true;
  std::uint16_t transport = 0;  ///< where in the IP packet's data the transport header begins
  std::uint16_t payload = 0;    ///< and its payload; 0: a later fragment tells
};

/// Offsets count from the first captured byte.
struct Decoded {
  FiveTuple key;           ///< only for `transport`
  bool src_is_low = true;  ///< likewise
  bool fragment = false;   ///< first or later part of a fragmented packet
  std::uint8_t tcp_flags = 0;
  std::uint32_t l3_offset = 0;
  std::uint32_t l4_offset = 0;  ///< of a later fragment: where its data begins
  std::uint32_t l7_offset = 0;
  std::uint32_t l7_size = 0;  ///< captured payload, cut at the end that the IP header names
  /// Of a fragment: where its data belongs in that of the IP packet, and of the first one where the
  /// transport header and its payload begin there, as in FirstFragment.
  std::uint16_t fragment_offset = 0;
  std::uint16_t fragment_transport = 0;
  std::uint16_t fragment_payload = 0;
};

inline constexpr std::uint8_t kTcpFin = 0x01;
inline constexpr std::uint8_t kTcpSyn = 0x02;
inline constexpr std::uint8_t kTcpRst = 0x04;
inline constexpr std::uint8_t kTcpAck = 0x10;

/// Decodes up to the transport header. Tunnels are not opened: the outermost IP header counts.
/// Nothing is read beyond the length that the IP header names: padding and trailers are not part of
/// the packet. IPv4 total length 0, and IPv6 payload length 0 without a jumbo payload option, mean
/// "to the end of the frame" (segmentation offload) if a plausible transport header is there. Never
/// reads outside `packet.bytes()`.
[[nodiscard]] Decode decode(const Packet& packet, Decoded& decoded) noexcept;

/// Whether packets of this link type can be decoded at all.
[[nodiscard]] bool is_decoded(LinkType link) noexcept;

/// For a packet that decode found to be a fragment (`decoded.fragment`).
[[nodiscard]] FragmentKey fragment_key(const Packet& packet, const Decoded& decoded) noexcept;

/// What a `transport` fragment says to later ones.
[[nodiscard]] FirstFragment first_fragment(const Decoded& decoded) noexcept;

/// A `later_fragment` becomes a packet of the session that `first` names. What it carries of the
/// transport header is no payload; if it tells where that ends, `first` gets to know it.
void join_fragment(const Packet& packet, FirstFragment& first, Decoded& decoded) noexcept;

}  // namespace millrace
