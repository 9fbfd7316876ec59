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

 private:
  const std::byte* data_;
  std::size_t size_;
};

/// What an IP header says that the transport header needs.
struct Network {
  std::uint8_t protocol = 0;
  std::uint8_t family = 4;
  std::size_t l4 = 0;
  std::size_t end = 0;  ///< of the packet's bytes: captured, and not beyond what the header names
  std::size_t src = 0;  ///< offsets of the addresses
  std::size_t dst = 0;
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

Decode ipv4(const Bytes& bytes, std::size_t l3, Network& network, Decoded& decoded) {
  if (!bytes.has(l3, 20)) return Decode::truncated;
  const std::size_t header = (bytes.u8(l3) & 0x0FU) * 4U;
  if (header < 20) return Decode::malformed;
  if (!bytes.has(l3, header)) return Decode::truncated;
  const std::size_t total = bytes.u16(l3 + 2);
  network.end = total >= header ? std::min(bytes.size(), l3 + total) : bytes.size();
  network.protocol = bytes.u8(l3 + 9);
  network.l4 = l3 + header;
  network.src = l3 + 12;
  network.dst = l3 + 16;
  const std::uint16_t fragment = bytes.u16(l3 + 6);
  decoded.fragment = (fragment & 0x3FFFU) != 0;
  return (fragment & 0x1FFFU) != 0 ? Decode::later_fragment : Decode::transport;
}

/// RFC 8200 section 4; AH: RFC 4302.
Decode ipv6(const Bytes& bytes, std::size_t l3, Network& network, Decoded& decoded) {
  constexpr std::size_t kHeader = 40;
  if (!bytes.has(l3, kHeader)) return Decode::truncated;
  const std::size_t payload = bytes.u16(l3 + 4);
  network.end = payload == 0 ? bytes.size() : std::min(bytes.size(), l3 + kHeader + payload);
  network.family = 6;
  network.src = l3 + 8;
  network.dst = l3 + 24;
  std::uint8_t next = bytes.u8(l3 + 6);
  std::size_t at = l3 + kHeader;
  while (true) {
    switch (next) {
      case kHopByHop:
      case kRouting:
      case kDestination:
      case kMobility:
        if (!bytes.has(at, 8)) return Decode::truncated;
        next = bytes.u8(at);
        at += (bytes.u8(at + 1) + 1U) * 8U;
        break;
      case kAuthentication:
        if (!bytes.has(at, 8)) return Decode::truncated;
        next = bytes.u8(at);
        at += (bytes.u8(at + 1) + 2U) * 4U;
        break;
      case kFragment: {
        if (!bytes.has(at, 8)) return Decode::truncated;
        next = bytes.u8(at);
        const std::uint16_t offset = bytes.u16(at + 2);
        decoded.fragment = decoded.fragment || (offset & 0xFFF9U) != 0;
        at += 8;
        if ((offset & 0xFFF8U) != 0) {
          network.protocol = next;
          network.l4 = at;
          return Decode::later_fragment;
        }
        break;
      }
      default:
        network.protocol = next;
        network.l4 = at;
        return Decode::transport;
    }
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

Decode transport(const Bytes& bytes, const Network& network, Decoded& decoded) {
  if (network.protocol != kTcp && network.protocol != kUdp) return Decode::not_tcp_udp;
  const std::size_t l4 = network.l4;
  if (!bytes.has(l4, 4)) return Decode::truncated;
  set_key(bytes, network, bytes.u16(l4), bytes.u16(l4 + 2), decoded);

  std::size_t payload = bytes.size();
  std::size_t end = network.end;
  decoded.tcp_flags = 0;
  if (network.protocol == kTcp) {
    if (bytes.has(l4, 14)) {
      const std::size_t header = (bytes.u8(l4 + 12) >> 4U) * 4U;
      decoded.tcp_flags = bytes.u8(l4 + 13);
      payload = header >= 20 ? l4 + header : end;
    }
  } else {
    payload = l4 + 8;
    if (bytes.has(l4, 6)) {
      const std::size_t length = bytes.u16(l4 + 4);
      if (length >= 8 && l4 + length <= end) end = l4 + length;
    }
  }
  if (payload > kMostOffset && payload < end) return Decode::malformed;
  decoded.l7_offset = static_cast<std::uint32_t>(std::min(payload, bytes.size()));
  decoded.l7_size = payload < end ? static_cast<std::uint32_t>(end - payload) : 0;
  return Decode::transport;
}

}  // namespace

std::string_view to_string(Decode decode) noexcept {
  static constexpr std::array<std::string_view, kDecodeKinds> kNames = {
      "transport",   "later-fragment", "link-type", "not-ip",
      "not-tcp-udp", "truncated",      "malformed"};
  return kNames[static_cast<std::size_t>(decode)];
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
    result = ipv4(bytes, l3, network, decoded);
  } else if (version == 6) {
    result = ipv6(bytes, l3, network, decoded);
  }
  decoded.l3_offset = static_cast<std::uint32_t>(l3);
  decoded.l4_offset = static_cast<std::uint32_t>(std::min(network.l4, bytes.size()));
  if (result == Decode::transport) result = transport(bytes, network, decoded);
  // No real header chain is that long, and the offsets of kept packets have 16 bits.
  if (network.l4 > kMostOffset && result != Decode::truncated) return Decode::malformed;
  if (result == Decode::later_fragment) {
    if (network.protocol != kTcp && network.protocol != kUdp) return Decode::not_tcp_udp;
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
  if (bytes.has(at, 8)) {
    key.protocol = bytes.u8(at);
    key.id = bytes.u32(at + 4);
  }
  return key;
}

}  // namespace millrace
