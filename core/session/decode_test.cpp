#include "millrace/decode.h"

#include <gtest/gtest.h>

#include "millrace/features.h"
#include "millrace/testing/items.h"

namespace millrace {
namespace {

using testing::Packets;
using Bytes = std::vector<std::uint8_t>;

Decode decode_bytes(const Bytes& bytes, Decoded& decoded, LinkType link = LinkType::ethernet) {
  Packets packets;
  return decode(packets.raw(bytes, {}, link), decoded);
}

void expect_udp_80(const Bytes& bytes, LinkType link, std::uint32_t l7_offset) {
  Decoded decoded;
  ASSERT_EQ(decode_bytes(bytes, decoded, link), Decode::transport);
  EXPECT_EQ(decoded.key.low_port, 1000);
  EXPECT_EQ(decoded.key.high_port, 80);
  EXPECT_TRUE(decoded.src_is_low);
  EXPECT_EQ(decoded.l7_offset, l7_offset);
  EXPECT_EQ(decoded.l7_size, 10U);
}

Bytes ipv6(const Bytes& extensions, std::uint8_t next, std::uint8_t last_protocol,
           const Bytes& rest) {
  Bytes head(40);
  head[0] = 0x60;
  const std::size_t size = extensions.size() + rest.size();
  Packets::put(head, 4, static_cast<std::uint16_t>(size));
  head[6] = extensions.empty() ? last_protocol : next;
  head[23] = 1;
  head[39] = 2;
  return Packets::behind(Packets::behind(head, extensions), rest);
}

Bytes udp_part() {
  const Bytes ip = Packets::ipv4({});
  return {ip.begin() + 20, ip.end()};
}

TEST(DecodeTest, EveryLinkTypeLeadsToTheSamePacket) {
  const Bytes ip = Packets::ipv4({});
  expect_udp_80(Packets::ethernet(ip), LinkType::ethernet, 42);
  expect_udp_80(ip, LinkType::raw, 28);
  expect_udp_80(ip, LinkType::raw_dlt, 28);
  expect_udp_80(ip, LinkType::ipv4, 28);
  expect_udp_80(Packets::behind({2, 0, 0, 0}, ip), LinkType::bsd_null, 32);
  expect_udp_80(Packets::behind({0, 0, 0, 2}, ip), LinkType::bsd_null, 32);
  expect_udp_80(Packets::behind({0, 0, 0, 2}, ip), LinkType::bsd_loop, 32);
  Bytes cooked(16);
  Packets::put(cooked, 14, 0x0800);
  expect_udp_80(Packets::behind(cooked, ip), LinkType::linux_cooked, 44);
  Bytes cooked2(20);
  Packets::put(cooked2, 0, 0x0800);
  expect_udp_80(Packets::behind(cooked2, ip), LinkType::linux_cooked2, 48);
  Decoded decoded;
  EXPECT_EQ(decode_bytes(ip, decoded, static_cast<LinkType>(9)), Decode::link_type);
}

TEST(DecodeTest, VlanTagsAreSkipped) {
  const Bytes ip = Packets::ipv4({});
  for (const std::uint16_t tag : {0x8100, 0x88A8, 0x9100, 0x9200}) {
    Bytes tags = {0, 5, 0x81, 0x00, 0, 6, 0x08, 0x00};
    expect_udp_80(Packets::ethernet(Packets::behind(tags, ip), tag), LinkType::ethernet, 50);
  }
}

TEST(DecodeTest, Ipv6ExtensionHeadersAreWalked) {
  Decoded decoded;
  const Bytes hop_then_routing = {43, 0, 0, 0, 0, 0, 0, 0, 60, 0, 0, 0, 0, 0, 0, 0};
  const Bytes destination = {17, 0, 0, 0, 0, 0, 0, 0};
  ASSERT_EQ(decode_bytes(Packets::ethernet(ipv6(Packets::behind(hop_then_routing, destination), 0,
                                                17, udp_part()),
                                           0x86DD),
                         decoded),
            Decode::transport);
  EXPECT_EQ(decoded.key.family, 6);
  EXPECT_EQ(decoded.l7_offset, 14U + 40 + 24 + 8);
  const Bytes authentication = {17, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
  EXPECT_EQ(
      decode_bytes(Packets::ethernet(ipv6(authentication, 51, 17, udp_part()), 0x86DD), decoded),
      Decode::transport);
}

TEST(DecodeTest, Ipv6FragmentsAreTold) {
  Decoded decoded;
  const Bytes first = {17, 0, 0, 1, 0, 0, 0, 7};
  ASSERT_EQ(decode_bytes(Packets::ethernet(ipv6(first, 44, 17, udp_part()), 0x86DD), decoded),
            Decode::transport);
  EXPECT_TRUE(decoded.fragment);
  const Bytes later = {17, 0, 0, 8, 0, 0, 0, 7};
  Packets packets;
  const Packet packet = packets.raw(Packets::ethernet(ipv6(later, 44, 17, Bytes(16)), 0x86DD));
  ASSERT_EQ(decode(packet, decoded), Decode::later_fragment);
  EXPECT_EQ(fragment_key(packet, decoded).id, 7U);
  EXPECT_EQ(decoded.l7_size, 16U);
}

TEST(DecodeTest, PayloadEndsWhereTheHeadersSay) {
  Decoded decoded;
  Bytes ip = Packets::ipv4({});
  Packets::put(ip, 24, 8 + 4);  // UDP length
  decode_bytes(Packets::ethernet(ip), decoded);
  EXPECT_EQ(decoded.l7_size, 4U);
  Packets::put(ip, 24, 8 + 400);  // does not fit: not honoured
  decode_bytes(Packets::ethernet(ip), decoded);
  EXPECT_EQ(decoded.l7_size, 10U);
  Bytes trailer = Packets::ipv4({.tcp = true});
  trailer.resize(trailer.size() + 6);  // Ethernet padding
  decode_bytes(Packets::ethernet(trailer), decoded);
  EXPECT_EQ(decoded.l7_size, 10U);
  Packets::put(trailer, 2, 0);  // segmentation offload: to the end of what was captured
  decode_bytes(Packets::ethernet(trailer), decoded);
  EXPECT_EQ(decoded.l7_size, 16U);
  Bytes short_offset = Packets::ipv4({.tcp = true});
  short_offset[32] = 0x40;
  decode_bytes(Packets::ethernet(short_offset), decoded);
  EXPECT_EQ(decoded.l7_size, 0U);
}

Bytes ipv6_of_length(std::uint16_t length, std::uint8_t next, const Bytes& rest) {
  Bytes bytes = ipv6({}, 0, next, rest);
  Packets::put(bytes, 4, length);
  return bytes;
}

TEST(DecodeTest, PortsAreNeverTakenFromBehindTheIpPacket) {
  Decoded decoded;
  // Ethernet padding behind a packet that ends with its IP header, or within its ports.
  for (const std::size_t size : {20, 21, 22, 23}) {
    for (const bool tcp : {true, false}) {
      Bytes ip = Packets::ipv4({.tcp = tcp});
      Packets::put(ip, 2, static_cast<std::uint16_t>(size));
      EXPECT_EQ(decode_bytes(Packets::ethernet(ip), decoded), Decode::malformed) << size;
    }
  }
  Bytes ip = Packets::ipv4({});
  Packets::put(ip, 2, 19);  // less than its own header
  EXPECT_EQ(decode_bytes(Packets::ethernet(ip), decoded), Decode::malformed);
  for (const std::uint16_t size : {1, 2, 3}) {
    EXPECT_EQ(
        decode_bytes(Packets::ethernet(ipv6_of_length(size, 17, udp_part()), 0x86DD), decoded),
        Decode::malformed);
  }
  // An extension header that reaches beyond the payload length.
  const Bytes destination = Packets::behind({17, 1, 0, 0, 0, 0, 0, 0}, udp_part());
  EXPECT_EQ(decode_bytes(Packets::ethernet(ipv6_of_length(8, 60, destination), 0x86DD), decoded),
            Decode::malformed);
  EXPECT_EQ(decode_bytes(Packets::ethernet(ipv6_of_length(4, 60, destination), 0x86DD), decoded),
            Decode::malformed);
}

TEST(DecodeTest, TcpHeaderIsNotReadBeyondTheIpPacket) {
  Decoded decoded;
  Bytes ip = Packets::ipv4({.tcp = true, .flags = kTcpSyn});
  Packets::put(ip, 2, 20 + 8);  // the ports are there, the flags are padding
  ASSERT_EQ(decode_bytes(Packets::ethernet(ip), decoded), Decode::transport);
  EXPECT_EQ(decoded.tcp_flags, 0);
  EXPECT_EQ(decoded.l7_size, 0U);
  EXPECT_EQ(decoded.l7_offset, 14U + 28);
  Bytes options = Packets::ipv4({.tcp = true});
  options[32] = 0xF0;  // a header of 60 bytes in a packet with 30
  ASSERT_EQ(decode_bytes(Packets::ethernet(options), decoded), Decode::transport);
  EXPECT_EQ(decoded.l7_size, 0U);
}

TEST(DecodeTest, WithoutALengthThereMustBeATransportHeader) {
  Decoded decoded;
  const auto v6 = [&](std::uint8_t next, const Bytes& rest) {
    return decode_bytes(Packets::ethernet(ipv6_of_length(0, next, rest), 0x86DD), decoded);
  };
  const Bytes tcp_packet = Packets::ipv4({.tcp = true});
  const Bytes tcp(tcp_packet.begin() + 20, tcp_packet.end());
  EXPECT_EQ(v6(6, tcp), Decode::transport);  // segmentation offload
  EXPECT_EQ(decoded.l7_size, 10U);
  EXPECT_EQ(v6(17, udp_part()), Decode::transport);
  // A trailer that is too small, or that is zeros.
  EXPECT_EQ(v6(6, {0x12, 0x34, 0x56, 0x78, 1, 2, 3, 4, 5, 6, 7, 8}), Decode::malformed);
  EXPECT_EQ(v6(17, {0x12, 0x34, 0x56, 0x78}), Decode::malformed);
  EXPECT_EQ(v6(6, Bytes(30)), Decode::malformed);
  EXPECT_EQ(v6(17, Bytes(30)), Decode::malformed);
  Bytes ip = Packets::ipv4({});
  Packets::put(ip, 2, 0);
  std::fill(ip.begin() + 20, ip.end(), std::uint8_t{0});
  EXPECT_EQ(decode_bytes(Packets::ethernet(ip), decoded), Decode::malformed);
  // What the capture cut off counts: the frame was longer.
  Packets packets;
  Packet cut = packets.raw(
      Packets::ethernet(ipv6_of_length(0, 6, Bytes(tcp.begin(), tcp.begin() + 8)), 0x86DD));
  cut.length = 4000;
  EXPECT_EQ(decode(cut, decoded), Decode::transport);
}

TEST(DecodeTest, JumboPayloadOptionNamesTheLength) {
  Decoded decoded;
  const std::uint8_t udp_size = 18;
  Bytes hop = {17, 0, 0xC2, 4, 0, 0, 0, 8 + udp_size};
  Bytes bytes = ipv6_of_length(0, 0, Packets::behind(Packets::behind(hop, udp_part()), Bytes(9)));
  ASSERT_EQ(decode_bytes(Packets::ethernet(bytes, 0x86DD), decoded), Decode::transport);
  EXPECT_EQ(decoded.l7_size, 10U);
  bytes[47] = 8 + 2;  // ends within the ports
  EXPECT_EQ(decode_bytes(Packets::ethernet(bytes, 0x86DD), decoded), Decode::malformed);
}

TEST(DecodeTest, UdpLengthThatIsNoneLeavesNoPayload) {
  Decoded decoded;
  Bytes ip = Packets::ipv4({});
  for (const std::uint16_t length : {1, 7, 8}) {
    Packets::put(ip, 24, length);
    ASSERT_EQ(decode_bytes(Packets::ethernet(ip), decoded), Decode::transport);
    EXPECT_EQ(decoded.l7_size, 0U);
  }
  Packets::put(ip, 24, 0);
  decode_bytes(Packets::ethernet(ip), decoded);
  EXPECT_EQ(decoded.l7_size, 10U);
}

TEST(DecodeTest, AuthenticationHeadersOfIpv4AreSkipped) {
  Bytes ip = Packets::ipv4({});
  const Bytes authentication = {17, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1,
                                0,  0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
  ip.insert(ip.begin() + 20, authentication.begin(), authentication.end());
  ip[9] = 51;
  Packets::put(ip, 2, static_cast<std::uint16_t>(ip.size()));
  expect_udp_80(Packets::ethernet(ip), LinkType::ethernet, 42 + 24);
  Decoded decoded;
  ip[20] = 50;  // ESP behind it
  EXPECT_EQ(decode_bytes(Packets::ethernet(ip), decoded), Decode::not_tcp_udp);
  Packets::put(ip, 2, 20 + 6);  // ends within the header
  EXPECT_EQ(decode_bytes(Packets::ethernet(ip), decoded), Decode::malformed);
}

TEST(DecodeTest, ReasonsOfWhatBelongsToNoSession) {
  Decoded decoded;
  EXPECT_EQ(decode_bytes(Packets::ethernet(Bytes(40), 0x0806), decoded), Decode::not_ip);
  Bytes icmp = Packets::ipv4({});
  icmp[9] = 1;
  EXPECT_EQ(decode_bytes(Packets::ethernet(icmp), decoded), Decode::not_tcp_udp);
  Bytes short_header = Packets::ipv4({});
  short_header[0] = 0x44;
  EXPECT_EQ(decode_bytes(Packets::ethernet(short_header), decoded), Decode::malformed);
  EXPECT_EQ(decode_bytes({}, decoded), Decode::truncated);
}

TEST(DecodeTest, CutAnywhereItStaysInsideAndNamesAReason) {
  for (const Bytes& whole :
       {Packets::ethernet(Packets::ipv4({})), Packets::ethernet(Packets::ipv4({.tcp = true})),
        Packets::ethernet(
            ipv6({44, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 1, 0, 0, 0, 7}, 0, 17, udp_part()), 0x86DD)}) {
    for (std::size_t size = 0; size <= whole.size(); ++size) {
      // A heap block of just that size: a sanitizer sees a byte too much.
      Packets packets;
      Decoded decoded;
      const Packet packet =
          packets.raw(Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)));
      const Decode kind = decode(packet, decoded);
      if (kind == Decode::transport) {
        EXPECT_LE(decoded.l7_offset + decoded.l7_size, size);
      } else {
        EXPECT_EQ(kind, Decode::truncated) << size;
      }
    }
  }
}

TEST(DecodeTest, BothDirectionsHaveOneKey) {
  Decoded there;
  Decoded back;
  decode_bytes(Packets::ethernet(Packets::ipv4({.src = 1, .dst = 2, .src_port = 9, .dst_port = 5})),
               there);
  decode_bytes(Packets::ethernet(Packets::ipv4({.src = 2, .dst = 1, .src_port = 5, .dst_port = 9})),
               back);
  EXPECT_EQ(there.key, back.key);
  EXPECT_NE(there.src_is_low, back.src_is_low);
}

TEST(FeaturesTest, RuleOfTheDataSet) {
  const std::array<std::byte, 6> data = {std::byte{1}, std::byte{2}, std::byte{3},
                                         std::byte{4}, std::byte{5}, std::byte{6}};
  const std::array<SessionPacket, 4> packets = {{
      {{}, data.data(), 1, 0, 0, true, false},      // one byte: a keep-alive
      {{}, data.data(), 3, 0, 0, true, true},       // a fragment
      {{}, data.data(), 6, 1, 4, false, false},     // payload {5, 6}
      {{}, data.data() + 1, 3, 0, 0, true, false},  // {2, 3, 4}
  }};
  Session session;
  session.packets = packets;
  std::array<std::uint8_t, 4> row{};
  EXPECT_EQ(extract_features(session, {4, Layer::l7, 0, 2, false}, row), 4U);
  EXPECT_EQ(row, (std::array<std::uint8_t, 4>{5, 6, 2, 3}));
  std::array<std::uint8_t, 12> all{};
  EXPECT_EQ(extract_features(session, {12, Layer::l7, 9, 1, true}, all), 9U);
  EXPECT_EQ(all, (std::array<std::uint8_t, 12>{1, 1, 2, 3, 5, 6, 2, 3, 4, 9, 9, 9}));
  std::array<std::uint8_t, 5> l4{};
  EXPECT_EQ(extract_features(session, {5, Layer::l4, 0, 2, false}, l4), 5U);
  EXPECT_EQ(l4, (std::array<std::uint8_t, 5>{2, 3, 4, 5, 6}));
}

}  // namespace
}  // namespace millrace
