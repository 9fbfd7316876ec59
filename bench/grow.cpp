// Makes a large Ethernet capture out of small ones: OUT gets as many rounds over the inputs as it
// takes to reach MEGABYTES, with other addresses and later times in every round, so that sessions
// grow with packets. Inputs of other link types are left out. With --abreast N so many rounds go
// side by side: as many packets and sessions, N times as many of these open at once. With --spread
// N the packets of a session go to up to N sessions in turn: as many packets, more sessions.

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include <pcap/pcap.h>

#include "millrace/decode.h"

namespace {

struct Kept {
  std::uint64_t offset;  ///< microseconds since the file's first packet
  std::uint32_t length;
  std::uint32_t l3;
  bool ip;
  std::vector<std::uint8_t> bytes;
};

std::vector<Kept> read_all(int count, char** names) {
  std::vector<Kept> packets;
  for (int i = 0; i < count; ++i) {
    char message[PCAP_ERRBUF_SIZE];
    pcap_t* handle = pcap_open_offline(names[i], message);
    if (handle == nullptr) continue;
    pcap_pkthdr* header = nullptr;
    const u_char* data = nullptr;
    std::int64_t first = -1;
    while (pcap_datalink(handle) == DLT_EN10MB && pcap_next_ex(handle, &header, &data) == 1) {
      const std::int64_t time = header->ts.tv_sec * std::int64_t{1000000} + header->ts.tv_usec;
      if (first < 0) first = time;
      millrace::Packet packet;
      packet.data = reinterpret_cast<const std::byte*>(data);
      packet.captured = header->caplen;
      millrace::Decoded decoded;
      const auto kind = millrace::decode(packet, decoded);
      const bool ip = kind == millrace::Decode::transport;
      constexpr std::int64_t kMostOffset = 300000000;  // five minutes: rounds overlap
      const auto offset = static_cast<std::uint64_t>(
          std::min(std::max<std::int64_t>(time - first, 0), kMostOffset));
      packets.push_back(
          {offset, header->len, decoded.l3_offset, ip, {data, data + header->caplen}});
    }
    pcap_close(handle);
  }
  return packets;
}

}  // namespace

int main(int count, char** arguments) {
  std::uint32_t spread = 1;
  std::uint32_t abreast = 1;
  for (; count > 2 && arguments[1][0] == '-'; arguments += 2, count -= 2) {
    const auto value = static_cast<std::uint32_t>(std::strtoul(arguments[2], nullptr, 10));
    if (std::string_view(arguments[1]) == "--spread") {
      spread = value;
    } else if (std::string_view(arguments[1]) == "--abreast") {
      abreast = value;
    } else {
      count = 0;
    }
  }
  if (count < 4 || spread < 1 || spread > 256 || abreast < 1) {
    std::fprintf(stderr,
                 "usage: bench-grow [--abreast N] [--spread N] OUT MEGABYTES CAPTURE...\n"
                 "(spread: 1 to 256)\n");
    return 2;
  }
  std::vector<Kept> packets = read_all(count - 3, arguments + 3);
  if (packets.empty()) {
    std::fprintf(stderr, "no Ethernet packets in the captures\n");
    return 1;
  }
  pcap_t* dead = pcap_open_dead(DLT_EN10MB, 262144);
  pcap_dumper_t* out = pcap_dump_open(dead, arguments[1]);
  if (out == nullptr) {
    std::fprintf(stderr, "%s\n", pcap_geterr(dead));
    return 1;
  }
  const auto wanted = std::strtoull(arguments[2], nullptr, 10) * 1000000;
  std::uint64_t written = 24;
  std::uint32_t number = 0;
  const auto write = [&](Kept& packet, std::uint32_t round, std::uint32_t begin) {
    // The second byte is changed for this round alone: to set it a second time sets it back.
    const auto mark = static_cast<std::uint8_t>(round / 200 + 1);
    const bool v6 = packet.ip && packet.bytes[packet.l3] >> 4U == 6;
    const std::array<std::size_t, 2> addresses{v6 ? 8U : 12U, v6 ? 24U : 16U};
    for (std::size_t i = 0; packet.ip && i < addresses.size(); ++i) {
      // The same bytes of both addresses, so that both directions stay one session.
      std::uint8_t* address = packet.bytes.data() + packet.l3 + addresses[i];
      address[0] = static_cast<std::uint8_t>(10 + round % 200);
      address[1] ^= mark;
      if (spread > 1) address[2] = static_cast<std::uint8_t>(number % spread);
    }
    if (packet.ip) ++number;
    pcap_pkthdr header{};
    const std::uint64_t time = 1600000000000000ULL + begin * 1000000ULL + packet.offset;
    header.ts.tv_sec = static_cast<time_t>(time / 1000000);
    header.ts.tv_usec = static_cast<suseconds_t>(time % 1000000);
    header.caplen = static_cast<std::uint32_t>(packet.bytes.size());
    header.len = packet.length;
    pcap_dump(reinterpret_cast<u_char*>(out), &header, packet.bytes.data());
    written += 16 + packet.bytes.size();
    for (std::size_t i = 0; packet.ip && i < addresses.size(); ++i) {
      packet.bytes[packet.l3 + addresses[i] + 1] ^= mark;
    }
  };
  for (std::uint32_t round = 0; written < wanted; round += abreast) {
    for (Kept& packet : packets) {
      for (std::uint32_t i = 0; i < abreast && written < wanted; ++i) {
        write(packet, round + i, round);
      }
      if (written >= wanted) break;
    }
  }
  pcap_dump_close(out);
  pcap_close(dead);
  return 0;
}
