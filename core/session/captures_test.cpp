// The session core against real captures whose counts an independent parser found, and against
// published images of one of them. The captures are not part of the project.

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <sstream>

#include <gtest/gtest.h>
#include <pcap/pcap.h>
#include <zlib.h>

#include "millrace/features.h"
#include "millrace/session_table.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

fs::path shared() {
  if (const char* given = std::getenv("MILLRACE_SHARED")) return given;
  const char* source = std::getenv("MILLRACE_SOURCE");
  return fs::path(source != nullptr ? source : ".") / ".." / "shared";
}

struct Result {
  std::uint64_t packets = 0;
  SessionCounts counts;
  std::set<FiveTuple> tcp;
  std::set<FiveTuple> udp;
  std::uint64_t payload = 0;
  std::uint64_t kept_packets = 0;
  std::uint64_t kept_payload = 0;
  std::uint64_t beyond = 0;  ///< bytes that only the reference counts
};

void read(const fs::path& file, const std::function<void(const Packet&)>& take) {
  char message[PCAP_ERRBUF_SIZE];
  const std::unique_ptr<pcap_t, decltype(&pcap_close)> handle(
      pcap_open_offline_with_tstamp_precision(file.c_str(), PCAP_TSTAMP_PRECISION_NANO, message),
      &pcap_close);
  ASSERT_TRUE(handle) << message;
  pcap_pkthdr* header = nullptr;
  const u_char* data = nullptr;
  while (pcap_next_ex(handle.get(), &header, &data) == 1) {
    Packet packet;
    packet.time = Timestamp(std::chrono::seconds(header->ts.tv_sec) + Duration(header->ts.tv_usec));
    packet.data = reinterpret_cast<const std::byte*>(data);
    packet.captured = header->caplen;
    packet.length = header->len;
    packet.link = static_cast<LinkType>(pcap_datalink(handle.get()));
    take(packet);
  }
}

/// The reference cuts payload at the IP length only; Millrace honours the UDP length too (RFC 768).
/// Bytes of an IPv4 packet between the two.
std::uint64_t beyond_udp_length(const Packet& packet, const Decoded& decoded) {
  if (decoded.key.protocol != 17 || decoded.key.family != 4) return 0;
  const auto u16 = [&](std::size_t at) {
    return std::to_integer<std::size_t>(packet.data[at]) << 8U |
           std::to_integer<std::size_t>(packet.data[at + 1]);
  };
  const std::size_t total = u16(decoded.l3_offset + 2);
  const std::size_t header = decoded.l4_offset - decoded.l3_offset;
  const std::size_t end = total < header
                              ? packet.captured
                              : std::min<std::size_t>(packet.captured, decoded.l3_offset + total);
  const std::size_t ours = decoded.l7_offset + decoded.l7_size;
  return decoded.l7_offset < end && ours < end ? end - ours : 0;
}

Result split(const fs::path& file) {
  constexpr auto kForEver = std::chrono::hours(24 * 365 * 100);
  SessionTable table({.packets = 24, .delay = kForEver, .idle = kForEver});
  Result result;
  const SessionTable::Emit emit = [&](const Session& session, std::uint64_t) {
    (session.info.key.protocol == 6 ? result.tcp : result.udp).insert(session.info.key);
    if (session.info.epoch != 0) return;  // the reference has no epochs
    result.kept_packets += session.packets.size();
    for (const SessionPacket& packet : session.packets) {
      result.kept_payload += packet.from(Layer::l7).size();
    }
  };
  read(file, [&](const Packet& packet) {
    ++result.packets;
    Decoded decoded;
    if (decode(packet, decoded) == Decode::transport) {
      const std::uint64_t beyond = beyond_udp_length(packet, decoded);
      result.payload += decoded.l7_size + beyond;
      result.beyond += beyond;
    }
    table.add(std::span(&packet, 1), 0, emit);
  });
  table.flush(emit);
  result.counts = table.counts();
  return result;
}

TEST(CapturesTest, CountsAreThoseOfTheReference) {
  const fs::path folder = shared() / "captures";
  std::ifstream table(folder / "expected.tsv");
  if (!table) GTEST_SKIP() << "no captures in " << folder;
  std::string line;
  std::getline(table, line);
  int files = 0;
  int compared = 0;
  while (std::getline(table, line)) {
    std::vector<std::string> fields;
    std::stringstream columns(line);
    for (std::string field; std::getline(columns, field, '\t');) fields.push_back(field);
    ASSERT_EQ(fields.size(), 12U) << line;
    SCOPED_TRACE(fields[0]);
    const Result result = split(folder / fields[0]);
    const SessionCounts& counts = result.counts;
    EXPECT_EQ(std::to_string(result.packets), fields[3]);
    std::uint64_t undecodable = 0;
    for (const std::uint64_t n : counts.undecodable) undecodable += n;
    EXPECT_EQ(counts.stored + counts.after_due + undecodable + counts.lost_fragments,
              result.packets);
    ++files;
    if (fields[4] == "-") continue;
    EXPECT_EQ(std::to_string(counts.stored + counts.after_due - counts.joined_fragments),
              fields[4]);
    EXPECT_EQ(std::to_string(undecodable + counts.lost_fragments + counts.joined_fragments),
              fields[5]);
    EXPECT_EQ(std::to_string(result.tcp.size()), fields[6]);
    EXPECT_EQ(std::to_string(result.udp.size()), fields[7]);
    EXPECT_EQ(std::to_string(result.payload), fields[9]);
    // Joined fragments take places among the 24 that the reference gives to other packets.
    if (counts.joined_fragments == 0) {
      EXPECT_EQ(std::to_string(result.kept_packets), fields[10]);
      // Of the bytes beyond a UDP length it is not known here which packets were kept.
      if (result.beyond == 0) {
        EXPECT_EQ(std::to_string(result.kept_payload), fields[11]);
        ++compared;
      }
    }
  }
  EXPECT_EQ(files, 276);
  EXPECT_GT(compared, 240);
}

std::vector<std::uint8_t> unpacked(const fs::path& file) {
  const std::unique_ptr<gzFile_s, decltype(&gzclose)> handle(gzopen(file.c_str(), "rb"), &gzclose);
  std::vector<std::uint8_t> bytes;
  std::array<std::uint8_t, 65536> block{};
  while (handle) {
    const int got = gzread(handle.get(), block.data(), block.size());
    if (got <= 0) break;
    bytes.insert(bytes.end(), block.begin(), block.begin() + got);
  }
  return bytes;
}

TEST(CapturesTest, EveryPublishedTinbaImageIsFoundByteForByte) {
  const fs::path folder = shared() / "datasets" / "ustc-tfc2016";
  if (!fs::exists(folder / "Tinba.pcap")) GTEST_SKIP() << "no data set in " << folder;
  std::ifstream names(folder / "labels.txt");
  int tinba = 0;
  for (std::string name; std::getline(names, name) && name != "Tinba";) ++tinba;

  constexpr auto kForEver = std::chrono::hours(24 * 365 * 100);
  // One epoch for each five-tuple, as in the published set: a SYN must not begin another.
  SessionTable table({.packets = 65535, .delay = kForEver, .idle = kForEver});
  std::set<std::vector<std::uint8_t>> made;
  const FeatureSpec spec{784, Layer::l7, 0, 2, false};
  const SessionTable::Emit emit = [&](const Session& session, std::uint64_t) {
    std::vector<std::uint8_t> row(784);
    if (extract_features(session, spec, row) != 0) made.insert(row);
  };
  read(folder / "Tinba.pcap",
       [&](const Packet& packet) { table.add(std::span(&packet, 1), 0, emit); });
  table.flush(emit);

  std::size_t looked_for = 0;
  for (const std::string part : {"train", "dev"}) {
    const auto images = unpacked(folder / (part + "-images-idx3-ubyte.gz"));
    const auto labels = unpacked(folder / (part + "-labels-idx1-ubyte.gz"));
    ASSERT_GT(labels.size(), 8U);
    for (std::size_t i = 0; i + 8 < labels.size(); ++i) {
      if (labels[8 + i] != tinba) continue;
      const auto* begin = images.data() + 16 + i * 784;
      EXPECT_TRUE(made.contains({begin, begin + 784})) << part << " image " << i;
      ++looked_for;
    }
  }
  EXPECT_GT(looked_for, 100U);
}

}  // namespace
}  // namespace millrace
