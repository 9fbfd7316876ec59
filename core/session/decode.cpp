#include "millrace/decode.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace millrace {

namespace {

constexpr std::uint16_t kEtherIpv4 = 0x0800;
constexpr std::uint16_t kEtherIpv6 = 0x86DD;

constexpr std::uint8_t kHopByHop = 0;
constexpr std::uint8_t kTcp = 6;
constexpr std::uint8_t kUdp = 17;
constexpr std::uint8_t kRouting = 43;
constexpr std::uint8_t kFragment = 44;
constexpr std::uint8_t kAuthentication = 51;
constexpr std::uint8_t kDestination = 60;
constexpr std::uint8_t kMobility = 135;
constexpr std::uint8_t kHostIdentity = 139;
constexpr std::uint8_t kShim6 = 140;
constexpr std::uint8_t kJumboPayload = 0xC2;  ///< a hop-by-hop option

constexpr std::size_t kTcpHeader = 20;
constexpr std::size_t kUdpHeader = 8;

constexpr std::size_t kMostOffset = 65000;

/// Bounds-checked reading of network byte order.
class Bytes {
 public:
  Bytes(const std::byte* data, std::size_t size) : data_(data), size_(size) {}

  [[nodiscard]] bool has(std::size_t offset, std::size_t count) const {
    return offset <= size_ && size_ - offset >= count;
  }
  [[nodiscard]] std::uint8_t u8(std::size_t offset) const {
    return std::to_integer<std::uint8_t>(data_[offset]);
  }
  [[nodiscard]] std::uint16_t u16(std::size_t offset) const {
    return static_cast<std::uint16_t>(u8(offset) << 8U | u8(offset + 1));
  }
  [[nodiscard]] std::uint32_t u32(std::size_t offset) const {
    return static_cast<std::uint32_t>(u16(offset)) << 16U | u16(offset + 2);
  }
  void copy(std::size_t offset, std::size_t count, std::uint8_t* to) const {
    std::memcpy(to, data_ + offset, count);
  }
  [[nodiscard]] const std::byte* at(std::size_t offset) const { return data_ + offset; }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] Bytes first(std::size_t count) const { return {data_, std::min(count, size_)}; }

 private:
  const std::byte* data_;
  std::size_t size_;
};

/// What an IP header says that the transport header needs.
struct Network {
  std::uint8_t protocol = 0;
  std::uint8_t family = 4;
  std::size_t l4 = 0;
  std::size_t end = 0;   ///< of the packet's bytes: captured, and not beyond what the header names
  bool cut = false;      ///< the packet goes on behind what was captured
  bool endless = false;  ///< the header names no length
  std::size_t data = 0;  ///< of a fragment: where its data begins
  std::size_t src = 0;   ///< offsets of the addresses
  std::size_t dst = 0;

  /// The packet ends at `header_end` of its own accord or was cut by the capture.
  void set_end(std::size_t header_end, const Bytes& bytes) {
    cut = header_end > bytes.size();
    end = cut ? bytes.size() : header_end;
  }
  /// What it is that a header does not fit into the packet.
  [[nodiscard]] Decode too_short() const { return cut ? Decode::truncated : Decode::malformed; }
};

bool is_vlan(std::uint16_t type) {
  return type == 0x8100 || type == 0x88A8 || type == 0x9100 || type == 0x9200;
}

/// Skips VLAN tags from the EtherType at `offset` on.
Decode ethertype(const Bytes& bytes, std::size_t offset, std::size_t& l3) {
  if (!bytes.has(offset, 2)) return Decode::truncated;
  std::uint16_t type = bytes.u16(offset);
  offset += 2;
  while (is_vlan(type)) {
    if (!bytes.has(offset, 4)) return Decode::truncated;
    type = bytes.u16(offset + 2);
    offset += 4;
  }
  l3 = offset;
  return type == kEtherIpv4 || type == kEtherIpv6 ? Decode::transport : Decode::not_ip;
}

Decode link_layer(const Packet& packet, const Bytes& bytes, std::size_t& l3) {
  switch (packet.link) {
    case LinkType::ethernet:
      return ethertype(bytes, 12, l3);
    case LinkType::linux_cooked:
      return ethertype(bytes, 14, l3);
    case LinkType::linux_cooked2: {
      // draft-ietf-opsawg-pcaplinktype: the protocol comes first, the addresses end at 20.
      if (!bytes.has(0, 20)) return Decode::truncated;
      const std::uint16_t type = bytes.u16(0);
      l3 = 20;
      if (type == kEtherIpv4 || type == kEtherIpv6) return Decode::transport;
      if (!is_vlan(type)) return Decode::not_ip;
      return ethertype(bytes, 22, l3);
    }
    case LinkType::raw:
    case LinkType::raw_dlt:
    case LinkType::ipv4:
    case LinkType::ipv6:
      l3 = 0;
      return bytes.size() == 0 ? Decode::truncated : Decode::transport;
    case LinkType::bsd_null:
    case LinkType::bsd_loop: {
      if (!bytes.has(0, 4)) return Decode::truncated;
      std::uint32_t family = bytes.u32(0);
      // DLT_NULL is in the order of the capturing host: families are small numbers.
      if (packet.link == LinkType::bsd_null && family > 0xFFFF) family = __builtin_bswap32(family);
      l3 = 4;
      const bool ip = family == 2 || family == 10 || family == 24 || family == 28 || family == 30;
      return ip ? Decode::transport : Decode::not_ip;
    }
  }
  return Decode::link_type;
}

/// The header names no length: the packet is what the frame holds.
void set_endless(const Packet& packet, const Bytes& bytes, Network& network) {
  network.endless = true;
  network.cut = packet.length > packet.captured;
  network.end = bytes.size();
}

/// RFC 4302 section 2.
Decode skip_authentication(const Bytes& packet, Network& network) {
  if (!packet.has(network.l4, 8)) return network.too_short();
  network.protocol = packet.u8(network.l4);
  network.l4 += (packet.u8(network.l4 + 1) + 2U) * 4U;
  return Decode::transport;
}

Decode ipv4(const Packet& packet, const Bytes& bytes, std::size_t l3, Network& network,
            Decoded& decoded) {
  if (!bytes.has(l3, 20)) return Decode::truncated;
  const std::size_t header = (bytes.u8(l3) & 0x0FU) * 4U;
  if (header < 20) return Decode::malformed;
  if (!bytes.has(l3, header)) return Decode::truncated;
  const std::size_t total = bytes.u16(l3 + 2);
  if (total == 0) {
    set_endless(packet, bytes, network);
  } else if (total < header) {
    return Decode::malformed;
  } else {
    network.set_end(l3 + total, bytes);
  }
  network.protocol = bytes.u8(l3 + 9);
  network.l4 = l3 + header;
  network.data = network.l4;
  network.src = l3 + 12;
  network.dst = l3 + 16;
  const std::uint16_t fragment = bytes.u16(l3 + 6);
  if ((fragment & 0x3FFFU) != 0) {
    decoded.fragment = true;
    decoded.fragment_offset = static_cast<std::uint16_t>(fragment << 3U);
    if ((fragment & 0x1FFFU) != 0) return Decode::later_fragment;
  }
  const Bytes whole = bytes.first(network.end);
  while (network.protocol == kAuthentication) {
    if (const Decode kind = skip_authentication(whole, network); kind != Decode::transport) {
      return kind;
    }
  }
  return Decode::transport;
}

/// RFC 2675: the length in the jumbo payload option of the hop-by-hop header at `at`; 0: none.
std::size_t jumbo_length(const Bytes& bytes, std::size_t at) {
  if (!bytes.has(at, 8)) return 0;
  const std::size_t end = at + (bytes.u8(at + 1) + 1U) * 8U;
  at += 2;
  while (at < end && bytes.has(at, 2)) {
    const std::uint8_t type = bytes.u8(at);
    if (type == 0) {  // one byte of padding
      ++at;
      continue;
    }
    const std::size_t size = bytes.u8(at + 1);
    if (type == kJumboPayload && size == 4 && bytes.has(at + 2, 4)) return bytes.u32(at + 2);
    at += 2 + size;
  }
  return 0;
}

/// RFC 8200 section 4; AH: RFC 4302.
Decode ipv6(const Packet& packet, const Bytes& bytes, std::size_t l3, Network& network,
            Decoded& decoded) {
  constexpr std::size_t kHeader = 40;
  if (!bytes.has(l3, kHeader)) return Decode::truncated;
  network.family = 6;
  network.src = l3 + 8;
  network.dst = l3 + 24;
  network.protocol = bytes.u8(l3 + 6);
  network.l4 = l3 + kHeader;
  std::size_t payload = bytes.u16(l3 + 4);
  if (payload == 0 && network.protocol == kHopByHop) payload = jumbo_length(bytes, network.l4);
  if (payload == 0) {
    set_endless(packet, bytes, network);
  } else {
    network.set_end(l3 + kHeader + payload, bytes);
  }
  const Bytes whole = bytes.first(network.end);
  std::size_t& at = network.l4;
  while (true) {
    switch (network.protocol) {
      case kHopByHop:
      case kRouting:
      case kDestination:
      case kMobility:
      case kHostIdentity:
      case kShim6:
        if (!whole.has(at, 8)) return network.too_short();
        network.protocol = whole.u8(at);
        at += (whole.u8(at + 1) + 1U) * 8U;
        break;
      case kAuthentication:
        if (const Decode kind = skip_authentication(whole, network); kind != Decode::transport) {
          return kind;
        }
        break;
      case kFragment: {
        if (!whole.has(at, 8)) return network.too_short();
        network.protocol = whole.u8(at);
        const std::uint16_t offset = whole.u16(at + 2);
        at += 8;
        if ((offset & 0xFFF9U) != 0) {
          decoded.fragment = true;
          decoded.fragment_offset = static_cast<std::uint16_t>(offset & 0xFFF8U);
          network.data = at;
        }
        if ((offset & 0xFFF8U) != 0) return Decode::later_fragment;
        break;
      }
      default:
        return Decode::transport;
    }
  }
}

/// Whether a later fragment with this protocol or IPv6 next header may be one of TCP or UDP: an
/// extension header can stand between (RFC 8200 section 4.5).
bool may_be_transport(const Network& network) {
  switch (network.protocol) {
    case kTcp:
    case kUdp:
    case kAuthentication:
      return true;
    case kRouting:
    case kDestination:
    case kMobility:
    case kHostIdentity:
    case kShim6:
      return network.family == 6;
    default:
      return false;
  }
}

/// An address as numbers that compare as its bytes do.
template <class Word>
Word big_endian(const std::byte* at) {
  Word word = 0;
  std::memcpy(&word, at, sizeof word);
  if constexpr (std::endian::native == std::endian::big) return word;
  if constexpr (sizeof word == 4) return __builtin_bswap32(word);
  return __builtin_bswap64(word);
}

/// Whether the source is the lower endpoint; the addresses decide, then the ports.
bool source_is_low(const Bytes& bytes, const Network& network, std::uint16_t src_port,
                   std::uint16_t dst_port) {
  const std::byte* src = bytes.at(network.src);
  const std::byte* dst = bytes.at(network.dst);
  if (network.family == 4) {
    const std::uint64_t low = std::uint64_t{big_endian<std::uint32_t>(src)} << 16U | src_port;
    const std::uint64_t high = std::uint64_t{big_endian<std::uint32_t>(dst)} << 16U | dst_port;
    return low <= high;
  }
  for (const std::size_t half : {std::size_t{0}, sizeof(std::uint64_t)}) {
    const auto of_src = big_endian<std::uint64_t>(src + half);
    const auto of_dst = big_endian<std::uint64_t>(dst + half);
    if (of_src != of_dst) return of_src < of_dst;
  }
  return src_port <= dst_port;
}

void set_key(const Bytes& bytes, const Network& network, std::uint16_t src_port,
             std::uint16_t dst_port, Decoded& decoded) {
  FiveTuple& key = decoded.key;
  key = {};
  key.protocol = network.protocol;
  key.family = network.family;
  const bool src_low = source_is_low(bytes, network, src_port, dst_port);
  decoded.src_is_low = src_low;
  const std::size_t low = src_low ? network.src : network.dst;
  const std::size_t high = src_low ? network.dst : network.src;
  if (network.family == 4) {  // sizes that are known are copied without a call
    bytes.copy(low, 4, key.low.data());
    bytes.copy(high, 4, key.high.data());
  } else {
    bytes.copy(low, 16, key.low.data());
    bytes.copy(high, 16, key.high.data());
  }
  key.low_port = src_low ? src_port : dst_port;
  key.high_port = src_low ? dst_port : src_port;
}

/// Where no header names a length, padding must not be taken for a transport header.
bool plausible(const Packet& packet, const Bytes& bytes, const Network& network) {
  const std::size_t l4 = network.l4;
  const std::size_t size = packet.length > l4 ? packet.length - l4 : 0;
  if (network.protocol == kTcp) {
    return size >= kTcpHeader && (!bytes.has(l4, 13) || bytes.u8(l4 + 12) >> 4U >= 5);
  }
  if (size < kUdpHeader) return false;
  if (!bytes.has(l4, 6)) return true;
  const std::size_t length = bytes.u16(l4 + 4);
  // RFC 2675 section 4: length 0 in what is longer than 16 bits can say.
  return length == 0 ? size > 0xFFFF : length >= kUdpHeader;
}

/// `bytes` end with the packet.
Decode transport(const Bytes& bytes, const Network& network, Decoded& decoded) {
  const std::size_t l4 = network.l4;
  const std::size_t end = network.end;
  if (!bytes.has(l4, 4)) return network.too_short();
  set_key(bytes, network, bytes.u16(l4), bytes.u16(l4 + 2), decoded);

  std::size_t payload = end;
  std::size_t payload_end = end;
  std::size_t header = 0;  // 0: not known
  decoded.tcp_flags = 0;
  if (network.protocol == kTcp) {
    if (bytes.has(l4, 14)) {
      decoded.tcp_flags = bytes.u8(l4 + 13);
      const std::size_t size = (bytes.u8(l4 + 12) >> 4U) * 4U;
      if (size >= kTcpHeader) {
        header = size;
        payload = l4 + header;
      }
    }
  } else {
    header = kUdpHeader;
    payload = l4 + header;
    if (bytes.has(l4, 6)) {
      const std::size_t length = bytes.u16(l4 + 4);
      if (length != 0 && l4 + length <= end) payload_end = l4 + length;
    }
  }
  if (payload > kMostOffset && payload < payload_end) return Decode::malformed;
  if (decoded.fragment) {
    decoded.fragment_transport = static_cast<std::uint16_t>(l4 - network.data);
    decoded.fragment_payload =
        header == 0 ? std::uint16_t{0} : static_cast<std::uint16_t>(l4 + header - network.data);
  }
  decoded.l7_offset = static_cast<std::uint32_t>(std::min(payload, end));
  decoded.l7_size = payload < payload_end ? static_cast<std::uint32_t>(payload_end - payload) : 0;
  return Decode::transport;
}

}  // namespace

std::string_view to_string(Decode decode) noexcept {
  static constexpr std::array<std::string_view, kDecodeKinds> kNames = {
      "transport",   "later-fragment", "link-type", "not-ip",
      "not-tcp-udp", "truncated",      "malformed"};
  return kNames[static_cast<std::size_t>(decode)];
}

bool is_decoded(LinkType link) noexcept {
  Packet empty;
  empty.link = link;
  std::size_t l3 = 0;
  return link_layer(empty, Bytes(nullptr, 0), l3) != Decode::link_type;
}

Decode decode(const Packet& packet, Decoded& decoded) noexcept {
  const Bytes bytes(packet.data, packet.captured);
  decoded.fragment = false;
  std::size_t l3 = 0;
  if (const Decode link = link_layer(packet, bytes, l3); link != Decode::transport) return link;
  if (!bytes.has(l3, 1)) return Decode::truncated;
  Network network;
  const std::uint8_t version = bytes.u8(l3) >> 4U;
  Decode result = Decode::malformed;
  if (version == 4) {
    result = ipv4(packet, bytes, l3, network, decoded);
  } else if (version == 6) {
    result = ipv6(packet, bytes, l3, network, decoded);
  }
  decoded.l3_offset = static_cast<std::uint32_t>(l3);
  decoded.l4_offset = static_cast<std::uint32_t>(std::min(network.l4, bytes.size()));
  if (result == Decode::transport) {
    if (network.protocol != kTcp && network.protocol != kUdp) {
      result = Decode::not_tcp_udp;
    } else if (network.endless && !plausible(packet, bytes, network)) {
      result = Decode::malformed;
    } else {
      result = transport(bytes.first(network.end), network, decoded);
    }
  }
  // No real header chain is that long, and the offsets of kept packets have 16 bits.
  if (network.l4 > kMostOffset && result != Decode::truncated) return Decode::malformed;
  if (result == Decode::later_fragment) {
    if (!may_be_transport(network)) return Decode::not_tcp_udp;
    decoded.l7_offset = decoded.l4_offset;
    decoded.l7_size = static_cast<std::uint32_t>(
        network.end > decoded.l4_offset ? network.end - decoded.l4_offset : 0);
  }
  return result;
}

FragmentKey fragment_key(const Packet& packet, const Decoded& decoded) noexcept {
  const Bytes bytes(packet.data, packet.captured);
  const std::size_t l3 = decoded.l3_offset;
  FragmentKey key;
  if (bytes.u8(l3) >> 4U == 4) {
    bytes.copy(l3 + 12, 4, key.src.data());
    bytes.copy(l3 + 16, 4, key.dst.data());
    key.id = bytes.u16(l3 + 4);
    key.protocol = bytes.u8(l3 + 9);
    return key;
  }
  bytes.copy(l3 + 8, 16, key.src.data());
  bytes.copy(l3 + 24, 16, key.dst.data());
  key.family = 6;
  // decode walked the chain up to the fragment header; its data begins 8 bytes behind.
  std::uint8_t next = bytes.u8(l3 + 6);
  std::size_t at = l3 + 40;
  while (next != kFragment && bytes.has(at, 8)) {
    const std::size_t size =
        next == kAuthentication ? (bytes.u8(at + 1) + 2U) * 4U : (bytes.u8(at + 1) + 1U) * 8U;
    next = bytes.u8(at);
    at += size;
  }
  // Not the next header: it may differ between fragments of one packet (RFC 8200 section 4.5).
  if (bytes.has(at, 8)) key.id = bytes.u32(at + 4);
  return key;
}

FirstFragment first_fragment(const Decoded& decoded) noexcept {
  return {decoded.key, decoded.src_is_low, decoded.fragment_transport, decoded.fragment_payload};
}

void join_fragment(const Packet& packet, FirstFragment& first, Decoded& decoded) noexcept {
  decoded.key = first.key;
  decoded.src_is_low = first.src_is_low;
  decoded.tcp_flags = 0;
  std::size_t payload = first.payload;
  if (payload == 0) {
    // The first fragment of a TCP packet ends before the header's size.
    payload = first.transport + kTcpHeader;
    const std::size_t size_at = first.transport + std::size_t{12};
    if (size_at >= decoded.fragment_offset && size_at - decoded.fragment_offset < decoded.l7_size) {
      const Bytes bytes(packet.data, packet.captured);
      const std::size_t at = decoded.l7_offset + size_at - decoded.fragment_offset;
      payload = first.transport + std::max<std::size_t>((bytes.u8(at) >> 4U) * 4U, kTcpHeader);
      first.payload = static_cast<std::uint16_t>(payload);
    }
  }
  if (payload <= decoded.fragment_offset) return;
  const std::uint32_t rest =
      std::min(static_cast<std::uint32_t>(payload - decoded.fragment_offset), decoded.l7_size);
  decoded.l7_offset += rest;
  decoded.l7_size -= rest;
}

}  // namespace millrace
