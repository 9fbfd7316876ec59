#include "source_pcap.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <pcap/pcap.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "millrace/testing.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// A packet as a test compares it.
struct Seen {
  std::int64_t time;
  std::uint32_t length;
  std::string bytes;
  std::uint16_t link;
  friend bool operator==(const Seen&, const Seen&) = default;
};

std::vector<Seen> seen(const testing::Recorder<Packet>& recorder) {
  std::vector<Seen> list;
  for (const auto& batch : recorder.batches) {
    for (const Packet& p : batch.items) {
      list.push_back({p.time.time_since_epoch().count(),
                      p.length,
                      {reinterpret_cast<const char*>(p.data), p.captured},
                      static_cast<std::uint16_t>(p.link)});
    }
  }
  return list;
}

std::string number(std::uint32_t value, bool big) {
  std::string text(4, '\0');
  if (big) value = __builtin_bswap32(value);
  std::memcpy(text.data(), &value, 4);
  return text;
}

/// A classic capture with records of 10, 11, 12, ... bytes at 1.000000005 s, 2.000000005 s, ...
std::string classic(int records, bool big = false, bool nano = true,
                    std::uint32_t snaplen = 65535) {
  std::string file = number(nano ? 0xA1B23C4D : 0xA1B2C3D4, big);
  file += big ? std::string("\0\2\0\4", 4) : std::string("\2\0\4\0", 4);
  file += number(0, big) + number(0, big) + number(snaplen, big) + number(1, big);
  for (int i = 0; i < records; ++i) {
    const auto size = static_cast<std::uint32_t>(10 + i);
    file += number(static_cast<std::uint32_t>(i + 1), big) + number(5, big) + number(size, big) +
            number(size + 100, big) + std::string(size, static_cast<char>('a' + i));
  }
  return file;
}

std::string pcapng(int records) {
  std::string file = number(0x0A0D0D0A, false) + number(28, false) + number(0x1A2B3C4D, false) +
                     std::string("\1\0\0\0", 4) + std::string(8, '\xff') + number(28, false);
  file += number(1, false) + number(20, false) + number(1, false) + number(65535, false) +
          number(20, false);
  for (int i = 0; i < records; ++i) {
    const std::uint32_t time = 1000000U * static_cast<std::uint32_t>(i + 1);
    file += number(6, false) + number(44, false) + number(0, false) + number(0, false) +
            number(time, false) + number(10, false) + number(110, false) + std::string(10, 'x') +
            std::string(2, '\0') + number(44, false);
  }
  return file;
}

std::string gzip(const std::string& data) {
  z_stream stream{};
  deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&stream, data.size()) + 32, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(data.data()));
  stream.avail_in = static_cast<uInt>(data.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::string zstd(const std::string& data) {
  std::string out(ZSTD_compressBound(data.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), data.data(), data.size(), 3));
  return out;
}

class SourcePcapTest : public ::testing::Test {
 protected:
  SourcePcapTest()
      : folder_(fs::temp_directory_path() /
                ("source-pcap-" + std::to_string(::getpid()) + "-" +
                 ::testing::UnitTest::GetInstance()->current_test_info()->name())) {
    fs::create_directories(folder_);
  }
  ~SourcePcapTest() override { fs::remove_all(folder_); }
  SourcePcapTest(const SourcePcapTest&) = delete;
  SourcePcapTest& operator=(const SourcePcapTest&) = delete;

  std::string file(const std::string& name, const std::string& content) {
    std::ofstream(folder_ / name, std::ios::binary) << content;
    return folder_ / name;
  }

  std::vector<Seen> read(PcapOptions options) {
    recorder_.batches.clear();
    SourcePcap source(options);
    source.open(context_);
    Output<Packet> out(recorder_);
    source.run(out, {});
    return seen(recorder_);
  }
  std::vector<Seen> read(const std::string& content) {
    PcapOptions options;
    options.file = {file("x", content)};
    return read(options);
  }

  [[nodiscard]] bool said(std::string_view text) const {
    return std::ranges::any_of(context_.messages(), [&](const auto& message) {
      return message.second.find(text) != std::string::npos;
    });
  }

  fs::path folder_;
  testing::TestContext context_;
  testing::Recorder<Packet> recorder_;
};

TEST_F(SourcePcapTest, ReadsAllKindsOfClassicFiles) {
  const auto packets = read(classic(3));
  ASSERT_EQ(packets.size(), 3U);
  EXPECT_EQ(packets[1], (Seen{2000000005, 111, std::string(11, 'b'), 1}));
  EXPECT_EQ(recorder_.batches.back().watermark,
            Timestamp(Duration(3000000005)) - PacketClock::kLate);
  EXPECT_EQ(read(classic(3, true)), packets);
  EXPECT_EQ(read(classic(3, false, false))[1].time, 2000005000);
  EXPECT_EQ(read(classic(3, true, false))[1].time, 2000005000);
}

TEST_F(SourcePcapTest, ReadsPcapngAndCompressedFiles) {
  const auto packets = read(pcapng(3));
  ASSERT_EQ(packets.size(), 3U);
  EXPECT_EQ(packets[2].time, 3000000000);
  EXPECT_EQ(read(gzip(pcapng(3))), packets);
  EXPECT_EQ(read(zstd(pcapng(3))), packets);
  EXPECT_EQ(read(gzip(classic(3))), read(classic(3)));
  // Concatenated members and frames are one stream.
  const std::string whole = classic(3);
  EXPECT_EQ(read(gzip(whole.substr(0, 50)) + gzip(whole.substr(50))), read(whole));
  EXPECT_EQ(read(zstd(whole.substr(0, 50)) + zstd(whole.substr(50))), read(whole));
}

TEST_F(SourcePcapTest, FoldersAndListsAreReadInOrder) {
  fs::create_directories(folder_ / "d");
  file("d/2", classic(2));
  file("d/1", pcapng(1));
  file("d/.hidden", "not looked at");
  PcapOptions options;
  options.file = {folder_ / "d", file("y", classic(1))};
  const auto packets = read(options);
  ASSERT_EQ(packets.size(), 4U);
  EXPECT_EQ(packets[0].bytes, std::string(10, 'x'));
  EXPECT_EQ(packets[2].bytes, std::string(11, 'b'));
}

/// A classic capture with a packet of one byte at each of `times`, in seconds.
std::string at_times(const std::vector<std::uint32_t>& times, char byte) {
  std::string file = classic(0);
  for (const std::uint32_t time : times) {
    file += number(time, false) + number(0, false) + number(1, false) + number(1, false) + byte;
  }
  return file;
}

/// The first bytes of all packets, and '|' where a stream ends.
std::string story(const testing::Recorder<Packet>& recorder) {
  std::string text;
  for (const auto& batch : recorder.batches) {
    if (batch.watermark == kStreamEnds) text += '|';
    for (const Packet& packet : batch.items) text += static_cast<char>(packet.data[0]);
  }
  return text;
}

TEST_F(SourcePcapTest, FilesAreReadInTheOrderOfTheirPackets) {
  // As tcpdump -C calls them.
  fs::create_directories(folder_ / "d");
  for (std::uint32_t i = 0; i < 12; ++i) {
    const std::string content =
        at_times({1000 + 100 * i, 1001 + 100 * i}, static_cast<char>('a' + i));
    file("d/r.pcap" + (i == 0 ? "" : std::to_string(i)), i % 3 == 1 ? gzip(content) : content);
  }
  file("d/empty", "");
  PcapOptions options;
  options.file = {folder_ / "d"};
  for (const FileOrder order : {FileOrder::time, FileOrder::name}) {
    options.order = order;
    read(options);
    EXPECT_EQ(story(recorder_), "aabbccddeeffgghhiijjkkll");
  }
  // Names that say nothing of it, and a packet with a wrong time at the begin of one.
  fs::remove_all(folder_ / "d");
  fs::create_directories(folder_ / "d");
  file("d/1", at_times({5000, 5001}, 'c'));
  file("d/2", at_times({4294967000, 4000, 4001, 4002}, 'b'));
  file("d/3", at_times({3000, 3001}, 'a'));
  options.order = FileOrder::time;
  read(options);
  EXPECT_EQ(story(recorder_), "aabbbbcc");
  options.order = FileOrder::name;
  read(options);
  EXPECT_EQ(story(recorder_), "cc|bbbb|aa");
}

TEST_F(SourcePcapTest, WhatDoesNotContinueEndsWhatIsOpen) {
  PcapOptions options;
  options.file = {file("a", at_times({1000, 1005, 1010}, 'a')),
                  file("b", at_times({1008, 1020}, 'b')), file("c", at_times({1020, 1021}, 'c')),
                  file("d", at_times({9000, 9001}, 'd'))};
  read(options);
  EXPECT_EQ(story(recorder_), "aaa|bbcc|dd");
  // Those of an agent are together, and other agents' do not end them.
  options.file = {file("x.pcap", at_times({2000, 2010}, 'x')),
                  file("a.pcap", at_times({1, 2}, 'a'))};
  options.agent_from = AgentFrom::file;
  read(options);
  EXPECT_EQ(story(recorder_), "xx|aa");
}

TEST_F(SourcePcapTest, OnePacketWithAWrongTimeDoesNotEndTheDuration) {
  PcapOptions options;
  std::string content = at_times({100, 101, 4294967000, 102, 103, 104}, 'a');
  for (std::uint32_t i = 0; i < 100; ++i) content += at_times({105 + i}, 'b').substr(24);
  options.file = {file("x", content)};
  options.duration = 5s;
  read(options);
  EXPECT_EQ(story(recorder_), "aaaaa");
}

TEST_F(SourcePcapTest, OnePacketWithAWrongTimeDoesNotMoveTheWatermark) {
  PcapOptions options;
  options.file = {file("x", at_times({10, 11, 4294967000, 12, 0, 13}, 'x'))};
  options.batch = 1;
  read(options);
  std::vector<Timestamp> watermarks;
  for (const auto& batch : recorder_.batches) watermarks.push_back(batch.watermark);
  EXPECT_THAT(watermarks, ElementsAre(Timestamp(9s), Timestamp(10s), Timestamp(10s), Timestamp(11s),
                                      Timestamp(11s), Timestamp(12s)));
}

TEST_F(SourcePcapTest, CutAnywhereItGivesAllWholePackets) {
  for (const std::string& whole : {classic(3), pcapng(3)}) {
    const auto all = read(whole);
    for (std::size_t size = 1; size < whole.size(); ++size) {
      try {
        const auto packets = read(whole.substr(0, size));
        EXPECT_TRUE(std::equal(packets.begin(), packets.end(), all.begin())) << size;
        EXPECT_LE(packets.size(), all.size());
      } catch (const std::runtime_error&) {
        EXPECT_LE(size, 60U) << "only a file header that is cut off is an error";
      }
    }
  }
  const std::uint64_t before = context_.counter("truncated-records").value();
  read(classic(3).substr(0, classic(3).size() - 1));
  EXPECT_EQ(context_.counter("truncated-records").value(), before + 1);
  EXPECT_TRUE(said("at byte 77;"));
  read(gzip(classic(3)).substr(0, gzip(classic(3)).size() - 12));
  EXPECT_EQ(context_.counter("truncated-records").value(), before + 2);
}

TEST_F(SourcePcapTest, DamagedLengthNamesPlaceAfterGivingWhatCameBefore) {
  std::string content = classic(3);
  content.replace(24 + 26 + 8, 4, std::string(4, '\x7f'));
  try {
    read(content);
    FAIL() << "nothing was thrown";
  } catch (const std::runtime_error& error) {
    EXPECT_THAT(error.what(), HasSubstr("damaged at byte 50: record 2"));
  }
  EXPECT_EQ(seen(recorder_).size(), 1U);
}

TEST_F(SourcePcapTest, PacketsBearTheNameOfTheAgent) {
  PcapOptions options;
  for (const std::string& content : {classic(3), pcapng(3)}) {
    options.file = {file("x", content)};
    options.agent = "site a";
    read(options);
    ASSERT_EQ(recorder_.items().size(), 3U);
    for (const Packet& packet : recorder_.items()) {
      ASSERT_NE(packet.origin, nullptr);
      EXPECT_EQ(packet.origin->agent, "site a");
    }
    options.agent.clear();
    read(options);
    EXPECT_EQ(recorder_.items().at(0).origin, nullptr);
  }
}

/// The agents of the packets, each run of equal ones once.
std::vector<std::string> agents(const testing::Recorder<Packet>& recorder) {
  std::vector<std::string> list;
  for (const Packet& packet : recorder.items()) {
    const std::string agent = packet.origin == nullptr ? "" : packet.origin->agent;
    if (list.empty() || list.back() != agent) list.push_back(agent);
  }
  return list;
}

TEST_F(SourcePcapTest, FoldersBelowAreReadAndCanNameTheAgents) {
  fs::create_directories(folder_ / "d/web/2020");
  fs::create_directories(folder_ / "d/mail");
  fs::create_directories(folder_ / "d/.hidden");
  file("d/web/2020/a.pcap", classic(2));
  file("d/web/b.pcap.gz", gzip(pcapng(3)));
  file("d/mail/c.pcapng", pcapng(1));
  file("d/.hidden/x", "this is no capture");
  PcapOptions options;
  options.file = {folder_ / "d"};
  EXPECT_EQ(read(options).size(), 6U);
  EXPECT_THAT(agents(recorder_), ElementsAre(""));
  options.agent_from = AgentFrom::folder;
  for (const std::string ending : {"", "/"}) {
    options.file = {(folder_ / "d").string() + ending};
    EXPECT_EQ(read(options).size(), 6U);
    EXPECT_THAT(agents(recorder_), ElementsAre("mail", "web"));
  }
  options.file = {folder_ / "d/web/b.pcap.gz", folder_ / "d/mail"};
  EXPECT_EQ(read(options).size(), 4U);
  EXPECT_THAT(agents(recorder_), ElementsAre("web", "mail"));
  options.agent_from = AgentFrom::file;
  options.file = {folder_ / "d"};
  EXPECT_EQ(read(options).size(), 6U);
  EXPECT_THAT(agents(recorder_), ElementsAre("c", "a", "b"));
}

TEST_F(SourcePcapTest, FolderNamesThatAreNoneAreErrors) {
  fs::create_directories(folder_ / "d/web");
  file("d/web/a.pcap", classic(1));
  file("d/stray.pcap", classic(1));
  PcapOptions options;
  options.file = {folder_ / "d"};
  options.agent_from = AgentFrom::folder;
  Findings findings;
  probe_pcap_options(options, findings);
  ASSERT_EQ(findings.list().size(), 1U);
  EXPECT_EQ(findings.list()[0].option, "agent_from");
  EXPECT_THAT(findings.list()[0].message,
              AllOf(HasSubstr("'stray.pcap'"), HasSubstr("beside the folder 'web'")));
  EXPECT_THROW(SourcePcap(options).open(context_), ConfigError);
  fs::create_directory_symlink("..", folder_ / "d/web/up");
  options.agent_from = AgentFrom::option;
  try {
    SourcePcap(options).open(context_);
    FAIL() << "the folder leads back into itself";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("symbolic links"));
  }
  options.agent_from = AgentFrom::file;
  options.agent = "web";
  options.file = {"-"};
  Findings both;
  check_pcap_options(options, both);
  ASSERT_EQ(both.list().size(), 2U);
  EXPECT_EQ(both.list()[0].option, "agent");
  EXPECT_EQ(both.list()[1].option, "agent_from");
}

TEST_F(SourcePcapTest, SnaplenCountDurationAndFilter) {
  PcapOptions options;
  options.file = {file("x", classic(9))};
  options.snaplen = 11;
  EXPECT_EQ(read(options)[5].bytes, std::string(11, 'f'));
  options.count = 4;
  EXPECT_EQ(read(options).size(), 4U);
  options.count = 0;
  options.duration = 3s;
  EXPECT_EQ(read(options).size(), 3U);
  options.duration = {};
  options.filter = "greater 113";
  EXPECT_EQ(read(options).size(), 6U);
  EXPECT_EQ(context_.counter("filtered").value(), 3U);
}

TEST_F(SourcePcapTest, ProbeFindsWhatIsNotThere) {
  Findings findings;
  PcapOptions options;
  options.interface = "no-such-if";
  probe_pcap_options(options, findings);
  options.interface.clear();
  options.file = {file("here.pcap", classic(1))};
  probe_pcap_options(options, findings);
  options.file = {folder_ / "away.pcap"};
  probe_pcap_options(options, findings);
  ASSERT_EQ(findings.list().size(), 2U);
  EXPECT_EQ(findings.list()[0].option, "interface");
  EXPECT_THAT(findings.list()[0].message, HasSubstr("there is no interface 'no-such-if'"));
  EXPECT_EQ(findings.list()[1].option, "file");
}

TEST_F(SourcePcapTest, MistakesAreConfigurationErrors) {
  Findings findings;
  PcapOptions options;
  check_pcap_options(options, findings);
  options.file = {"x"};
  options.interface = "lo";
  options.filter = "tcp prot 80";
  check_pcap_options(options, findings);
  ASSERT_EQ(findings.list().size(), 3U);
  EXPECT_THAT(findings.list()[2].message, HasSubstr("syntax error"));
  file("capture.pcap", classic(1));
  PcapOptions wrong;
  wrong.file = {folder_ / "captrue.pcap"};
  try {
    SourcePcap(wrong).open(context_);
    FAIL() << "nothing was thrown";
  } catch (const ConfigError& error) {
    EXPECT_EQ(error.option(), "file");
    EXPECT_THAT(error.what(), HasSubstr("did you mean"));
  }
  wrong.file = {file("text", "this is no capture at all")};
  EXPECT_THROW(SourcePcap(wrong).open(context_), ConfigError);
  wrong.file = {file("capture.pcap", classic(1))};
  wrong.filter = "wlan type mgt";  // does not fit Ethernet
  EXPECT_THROW(SourcePcap(wrong).open(context_), ConfigError);
}

std::string half(std::uint16_t value, bool big) {
  return big ? std::string{static_cast<char>(value >> 8U), static_cast<char>(value)}
             : std::string{static_cast<char>(value), static_cast<char>(value >> 8U)};
}

/// Blocks of a pcapng file in one byte order.
struct Ng {
  bool big = false;

  [[nodiscard]] std::string block(std::uint32_t type, std::string body) const {
    body.resize((body.size() + 3) / 4 * 4);
    const auto length = static_cast<std::uint32_t>(body.size() + 12);
    return number(type, big) + number(length, big) + body + number(length, big);
  }
  [[nodiscard]] std::string section() const {
    return block(0x0A0D0D0A,
                 number(0x1A2B3C4D, big) + half(1, big) + half(0, big) + std::string(8, '\xff'));
  }
  [[nodiscard]] std::string interface(std::uint16_t link = 1, std::uint32_t snaplen = 65535,
                                      const std::string& options = {}) const {
    return block(1, half(link, big) + half(0, big) + number(snaplen, big) + options);
  }
  [[nodiscard]] std::string option(std::uint16_t code, std::string value) const {
    const auto size = static_cast<std::uint16_t>(value.size());
    value.resize((value.size() + 3) / 4 * 4);
    return half(code, big) + half(size, big) + value;
  }
  [[nodiscard]] std::string packet(std::uint64_t time, const std::string& data,
                                   std::uint32_t from = 0) const {
    const auto size = static_cast<std::uint32_t>(data.size());
    return block(6, number(from, big) + number(static_cast<std::uint32_t>(time >> 32U), big) +
                        number(static_cast<std::uint32_t>(time), big) + number(size, big) +
                        number(size + 100, big) + data);
  }
};

TEST_F(SourcePcapTest, PcapngInterfacesHaveLinkTypesLengthsAndTimesOfTheirOwn) {
  const Ng ng;
  const std::string nanoseconds = ng.option(9, "\x09");
  const std::string binary = ng.option(9, "\x81");  // half seconds
  const std::string picoseconds = ng.option(9, "\x0c");
  const std::string offset = ng.option(14, std::string("\x64\0\0\0\0\0\0\0", 8));
  const auto packets = read(
      ng.section() + ng.interface(1, 262144) + ng.interface(0, 96, nanoseconds) +
      ng.interface(195) + ng.packet(1000000, "eth") +
      ng.packet(1500000000, std::string(400, 'l'), 1) + ng.interface(101, 65535, binary + offset) +
      ng.block(0x0BAD, "custom") + ng.packet(5, "late", 3) + ng.interface(1, 65535, picoseconds) +
      ng.packet(7000000000123, "pico", 4) + ng.block(3, number(3, false) + "spb") +
      ng.block(5, std::string(300000, 's')) +
      ng.block(2, half(1, false) + half(0, false) + number(0, false) + number(9, false) +
                      number(3, false) + number(3, false) + "opb"));
  ASSERT_EQ(packets.size(), 6U);
  EXPECT_EQ(packets[0], (Seen{1000000000, 103, "eth", 1}));
  EXPECT_EQ(packets[1], (Seen{1500000000, 500, std::string(400, 'l'), 0}));
  EXPECT_EQ(packets[2], (Seen{102500000000, 104, "late", 12}));
  EXPECT_EQ(packets[3], (Seen{7000000000, 104, "pico", 1}));
  EXPECT_EQ(packets[4], (Seen{7000000000, 3, "spb", 1}));
  EXPECT_EQ(packets[5], (Seen{9, 3, "opb", 0}));
}

TEST_F(SourcePcapTest, PcapngSectionsHaveByteOrdersOfTheirOwn) {
  const Ng little;
  const Ng big{true};
  const auto packets = read(little.section() + little.interface() + little.packet(1000000, "a") +
                            big.section() + big.interface() + big.packet(2000000, "b") +
                            little.section() + little.interface(0) + little.packet(3000000, "c"));
  ASSERT_EQ(packets.size(), 3U);
  EXPECT_EQ(packets[1], (Seen{2000000000, 101, "b", 1}));
  EXPECT_EQ(packets[2], (Seen{3000000000, 101, "c", 0}));
}

TEST_F(SourcePcapTest, DamagedPcapngGivesWhatCameBeforeAndNamesTheBlock) {
  const Ng ng;
  const std::string good = ng.section() + ng.interface() + ng.packet(1000000, "good");
  std::string odd_end = ng.packet(1, "x");
  odd_end.back() = '\1';
  std::string claims = ng.packet(1, "x");
  claims.replace(20, 4, number(500, false));
  for (const auto& [bad, what] : std::vector<std::pair<std::string, std::string>>{
           {ng.packet(1, "x", 7), "a packet of interface 7, but its section has described 1"},
           {odd_end, "its length is"},
           {claims, "claims 500 captured bytes"},
           {number(6, false) + number(41, false) + std::string(8, 'x'), "a length of 41 bytes"},
           {std::string(16, '\0') + "no zeros", "zeros from byte"}}) {
    try {
      read(good + bad);
      ADD_FAILURE() << "nothing was thrown: " << what;
    } catch (const std::runtime_error& error) {
      EXPECT_THAT(error.what(), AllOf(HasSubstr("damaged at byte"), HasSubstr(what)));
    }
    EXPECT_EQ(seen(recorder_).size(), 1U) << what;
  }
}

TEST_F(SourcePcapTest, MoreBytesThanTheSnaplenOfTheFileAreKept) {
  EXPECT_EQ(read(classic(3, false, true, 4)), read(classic(3)));
  std::string modified = classic(0);  // of a kind that libpcap reads
  modified.replace(0, 4, number(0xA1B2CD34, false));
  modified.replace(16, 4, number(4, false));
  modified += number(1, false) + number(0, false) + number(10, false) + number(10, false) +
              std::string(8, '\0') + std::string(10, 'm');
  const auto packets = read(modified);
  ASSERT_EQ(packets.size(), 1U);
  EXPECT_EQ(packets[0].bytes, std::string(10, 'm'));
}

TEST_F(SourcePcapTest, CapturesThatFollowOneAnotherInAFileAreAllRead) {
  const auto first = read(classic(2));
  std::string cooked = classic(1, true, false);
  cooked.replace(20, 4, number(113, true));
  for (const std::string& second : {classic(3), classic(3, true), pcapng(3), cooked}) {
    auto expected = read(second);
    expected.insert(expected.begin(), first.begin(), first.end());
    EXPECT_EQ(read(classic(2) + second), expected);
    EXPECT_EQ(read(gzip(classic(2)) + gzip(second)), expected);
  }
  auto expected = read(pcapng(2));
  expected.insert(expected.end(), first.begin(), first.end());
  EXPECT_EQ(read(pcapng(2) + classic(2)), expected);
  // The header of the second one is cut off.
  EXPECT_EQ(read(classic(2) + classic(1).substr(0, 20)), first);
  EXPECT_TRUE(said("cut off in the middle of the record at byte 77;"));
}

TEST_F(SourcePcapTest, ZerosBehindTheLastPacketAreNone) {
  for (const std::string& whole : {classic(3), pcapng(3)}) {
    const auto packets = read(whole);
    EXPECT_EQ(read(whole + std::string(400000, '\0')), packets);
    EXPECT_TRUE(said("nothing but zeros from byte " + std::to_string(whole.size())));
    EXPECT_EQ(read(gzip(whole) + std::string(1000, '\0')), packets);
    EXPECT_EQ(read(zstd(whole) + std::string(1000, '\0')), packets);
  }
}

std::string zstd_with_check(const std::string& data) {
  const std::unique_ptr<ZSTD_CCtx, decltype(&ZSTD_freeCCtx)> context(ZSTD_createCCtx(),
                                                                     &ZSTD_freeCCtx);
  ZSTD_CCtx_setParameter(context.get(), ZSTD_c_checksumFlag, 1);
  std::string out(ZSTD_compressBound(data.size()), '\0');
  out.resize(ZSTD_compress2(context.get(), out.data(), out.size(), data.data(), data.size()));
  return out;
}

TEST_F(SourcePcapTest, AWrongCheckAtTheEndLosesNoPacket) {
  // From far less than a block to many of them.
  for (const int records : {1, 4, 300, 2500}) {
    const std::string whole = classic(records);
    std::string packed = gzip(whole);
    packed[packed.size() - 6] ^= 1;
    std::string frame = zstd_with_check(whole);
    frame.back() ^= 1;
    for (const std::string& damaged : {packed, frame}) {
      try {
        read(damaged);
        ADD_FAILURE() << "nothing was thrown";
      } catch (const std::runtime_error& error) {
        EXPECT_THAT(error.what(), HasSubstr("damaged"));
      }
      EXPECT_EQ(seen(recorder_).size(), static_cast<std::size_t>(records));
    }
  }
  for (const std::string& damaged : {gzip(classic(3)) + "rubbish", zstd(classic(3)) + "rubbish"}) {
    EXPECT_THROW(read(damaged), std::runtime_error);
    EXPECT_EQ(seen(recorder_).size(), 3U);
  }
}

TEST_F(SourcePcapTest, SkippableFramesArePassedOver) {
  const std::string whole = classic(3);
  const auto packets = read(whole);
  const std::string skippable = number(0x184D2A50, false) + number(4, false) + "size";
  const std::string other = number(0x184D2A5F, false) + number(0, false);
  EXPECT_EQ(read(skippable + zstd(whole)), packets);
  EXPECT_EQ(read(zstd(whole) + other), packets);
  EXPECT_EQ(
      read(other + skippable + zstd(whole.substr(0, 40)) + skippable + zstd(whole.substr(40))),
      packets);
}

TEST_F(SourcePcapTest, OtherPackingsAreNamed) {
  for (const auto& [head, what] : std::vector<std::pair<std::string, std::string>>{
           {std::string("\xFD\x37zXZ\0", 6), "is compressed with xz; unpack it first"},
           {"\x04\x22\x4D\x18", "is compressed with lz4; unpack it first"},
           {"BZh9", "is compressed with bzip2; unpack it first"},
           {"PK\x03\x04", "is a zip archive; unpack it first"},
           {gzip(gzip("x")), "is compressed with gzip twice"},
           {gzip(std::string(257, 'n') + "ustar"), "is a tar archive"},
           {std::string("snoop\0\0\0", 8), "is a snoop capture"}}) {
    PcapOptions options;
    options.file = {file("x", head + std::string(300, '.'))};
    if (head[0] == '\x1F') file("x", head);
    Findings findings;
    probe_pcap_options(options, findings);
    ASSERT_EQ(findings.list().size(), 1U) << what;
    EXPECT_THAT(findings.list()[0].message, HasSubstr(what));
    try {
      SourcePcap(options).open(context_);
      ADD_FAILURE() << "nothing was thrown: " << what;
    } catch (const ConfigError& error) {
      EXPECT_THAT(error.what(), HasSubstr(what));
    }
  }
}

std::string with_link(std::string capture, std::uint32_t link) {
  return capture.replace(20, 4, number(link, false));
}

TEST_F(SourcePcapTest, AFileOfWhichNothingCanBeDecodedIsAnError) {
  const Ng ng;
  PcapOptions options;
  for (const std::string& content :
       {with_link(classic(2), 105), ng.section() + ng.interface(105) + ng.packet(1, "wlan")}) {
    options.file = {file("wlan", content), file("ethernet", classic(3))};
    try {
      read(options);
      ADD_FAILURE() << "nothing was thrown";
    } catch (const std::runtime_error& error) {
      EXPECT_THAT(error.what(),
                  AllOf(HasSubstr("wlan: none of its"), HasSubstr("link type IEEE802_11 (105)")));
    }
    EXPECT_GT(seen(recorder_).size(), 3U) << "the other file is read all the same";
    Findings findings;
    probe_pcap_options(options, findings);
    ASSERT_EQ(findings.list().size(), 1U);
    EXPECT_THAT(findings.list()[0].message, HasSubstr("IEEE802_11 (105)"));
  }
  // In a folder with others: a warning.
  fs::create_directories(folder_ / "d");
  file("d/a", with_link(classic(2), 105));
  options.file = {folder_ / "d"};
  EXPECT_THROW(read(options), std::runtime_error);
  file("d/b", classic(3));
  EXPECT_EQ(read(options).size(), 5U);
  EXPECT_TRUE(said("a: none of its 2 packets can be decoded: link type IEEE802_11 (105)"));
  // One interface of two: likewise.
  read(ng.section() + ng.interface(105) + ng.interface(1) + ng.packet(1, "wlan") +
       ng.packet(1, "ethernet", 1));
  EXPECT_TRUE(said("1 of its 2 packets cannot be decoded: link type IEEE802_11 (105)"));
}

TEST_F(SourcePcapTest, ARunOfWhichNoSessionComesSaysWhy) {
  const auto last = [&] { return context_.messages().back().second; };
  read(classic(3));
  EXPECT_THAT(last(), HasSubstr("none of the 3 packets is TCP or UDP over IP (truncated 3)"));
  PcapOptions options;
  options.file = {file("x", classic(3))};
  options.filter = "greater 5000";
  read(options);
  EXPECT_THAT(last(), HasSubstr("none of the 3 packets matches the filter 'greater 5000'"));
  read(classic(0));
  EXPECT_THAT(last(), HasSubstr("no packets are in"));
}

TEST_F(SourcePcapTest, FiltersAreCompiledForEachLinkType) {
  const Ng ng;
  const std::string ip = std::string("\x45\0\0\x1c\0\0\0\0\x40\x11\0\0\x0a\0\0\1\x0a\0\0\2", 20) +
                         std::string("\3\xe8\0\x35\0\x08\0\0", 8);
  PcapOptions options;
  options.filter = "udp port 53";
  options.file = {
      file("x", ng.section() + ng.interface(1) + ng.interface(101) +
                    ng.packet(1, std::string(12, '\0') + "\x08" + std::string(1, '\0') + ip) +
                    ng.packet(2, ip, 1) + ng.packet(3, std::string(60, 'x')) +
                    ng.packet(4, std::string(60, 'x'), 1))};
  const auto packets = read(options);
  ASSERT_EQ(packets.size(), 2U);
  EXPECT_EQ(packets[1].bytes, ip);
  EXPECT_EQ(context_.counter("filtered").value(), 2U);
}

TEST_F(SourcePcapTest, OtherFilesOfAFolderArePassedOver) {
  fs::create_directories(folder_ / "d");
  file("d/README.md", "# Captures\n\nThese are captures of the laboratory.\n");
  file("d/a.pcap", classic(2));
  file("d/z.xz", std::string("\xFD\x37zXZ\0", 6) + std::string(50, 'z'));
  PcapOptions options;
  options.file = {folder_ / "d"};
  EXPECT_EQ(read(options).size(), 2U);
  EXPECT_EQ(context_.counter("no-captures").value(), 2U);
  EXPECT_THAT(context_.messages().front().second, AllOf(HasSubstr("2 files are no captures"),
                                                        HasSubstr("README.md"), HasSubstr("z.xz")));
  for (const OtherFiles other : {OtherFiles::stop, OtherFiles::automatic, OtherFiles::skip}) {
    // Folders that name the agents are classes: by default none of them may lack a file.
    options.agent_from = other == OtherFiles::stop ? AgentFrom::option : AgentFrom::folder;
    options.other_files = other;
    const bool skips = other == OtherFiles::skip;
    Findings findings;
    probe_pcap_options(options, findings);
    EXPECT_EQ(findings.list().empty(), skips);
    const std::size_t before = seen(recorder_).size();
    SourcePcap source(options);
    source.open(context_);
    Output<Packet> out(recorder_);
    if (skips) {
      EXPECT_NO_THROW(source.run(out, {}));
    } else {
      EXPECT_THROW(source.run(out, {}), std::runtime_error);
      EXPECT_EQ(seen(recorder_).size(), before);
    }
  }
  options = {};
  options.file = {folder_ / "d/README.md"};
  EXPECT_THROW(SourcePcap(options).open(context_), ConfigError);
  options.file = {file("first", classic(1)), folder_ / "d/README.md"};
  EXPECT_THROW(SourcePcap(options).open(context_), ConfigError) << "before anything is read";
  fs::remove(folder_ / "d/a.pcap");
  options.file = {folder_ / "d"};
  try {
    SourcePcap(options).open(context_);
    FAIL() << "nothing was thrown";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("holds no captures; 2 other files"));
  }
}

TEST_F(SourcePcapTest, AClassOfWhichNothingCanBeDecodedIsAnError) {
  fs::create_directories(folder_ / "d/web");
  fs::create_directories(folder_ / "d/dns");
  file("d/web/a.pcap", classic(2));
  std::string undecodable = classic(2);
  undecodable[20] = 105;  // IEEE802_11
  file("d/dns/b.pcap", undecodable);
  PcapOptions options;
  options.file = {folder_ / "d"};
  EXPECT_EQ(read(options).size(), 4U) << "a warning: the other captures are what was asked for";
  options.agent_from = AgentFrom::folder;
  Findings findings;
  probe_pcap_options(options, findings);
  EXPECT_FALSE(findings.list().empty());
  EXPECT_THROW(read(options), std::runtime_error);
}

TEST_F(SourcePcapTest, BothReadersAgreeOnEveryCapture) {
  const char* given = std::getenv("MILLRACE_SHARED");
  const char* source = std::getenv("MILLRACE_SOURCE");
  const fs::path folder =
      (given != nullptr ? fs::path(given)
                        : fs::path(source != nullptr ? source : ".") / ".." / "shared") /
      "captures";
  if (!fs::is_directory(folder)) GTEST_SKIP() << "no captures in " << folder;
  int compared = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    auto bytes = open_bytes(entry.path(), {});
    const auto ours = classic_reader(entry.path(), 262144, bytes);
    if (!ours) continue;
    const auto theirs = libpcap_reader(entry.path(), 262144, open_bytes(entry.path(), {}));
    std::vector<std::vector<Seen>> results;
    for (CaptureReader* reader : {ours.get(), theirs.get()}) {
      testing::Recorder<Packet> recorder;
      Output<Packet> out(recorder);
      PacketBatcher batcher(512, 65536);
      Gate gate(0, {});
      while (reader->step(out, batcher, gate) == CaptureReader::Step::more) {
      }
      results.push_back(seen(recorder));
    }
    ASSERT_EQ(results[0].size(), results[1].size()) << entry.path();
    for (std::size_t i = 0; i < results[0].size(); ++i) {
      const Seen& a = results[0][i];
      const Seen& b = results[1][i];
      ASSERT_TRUE(a == b) << entry.path() << " packet " << i << ": " << a.time << " " << b.time
                          << ", " << a.length << " " << b.length << ", " << a.bytes.size() << " "
                          << b.bytes.size() << ", " << a.link << " " << b.link;
    }
    EXPECT_EQ(ours->cut_off_at(), theirs->cut_off_at()) << entry.path();
    ++compared;
  }
  EXPECT_GT(compared, 100);
}

TEST_F(SourcePcapTest, CapturesOnTheLoopbackInterface) {
  const int socket = ::socket(AF_INET, SOCK_DGRAM, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof to;
  ASSERT_EQ(::bind(socket, reinterpret_cast<sockaddr*>(&to), size), 0);
  ::getsockname(socket, reinterpret_cast<sockaddr*>(&to), &size);
  PcapOptions options;
  options.interface = "lo";
  options.filter = "udp port " + std::to_string(ntohs(to.sin_port));
  options.immediate = true;
  options.count = 3;
  SourcePcap source(options);
  try {
    source.open(context_);
  } catch (const ConfigError& error) {
    ::close(socket);
    if (std::string_view(error.what()).find("CAP_NET_RAW") != std::string_view::npos)
      GTEST_SKIP() << error.what();
    throw;
  }
  for (int i = 0; i < 3; ++i)
    ::sendto(socket, "hello", 5, 0, reinterpret_cast<sockaddr*>(&to), sizeof to);
  // The kernel holds them already; a deadline for the case that it does not.
  std::stop_source stop;
  std::jthread deadline([&stop](const std::stop_token& over) {
    for (int i = 0; i < 200 && !over.stop_requested(); ++i) std::this_thread::sleep_for(50ms);
    stop.request_stop();
  });
  Output<Packet> out(recorder_);
  source.run(out, stop.get_token());
  deadline.request_stop();
  ::close(socket);
  const auto packets = seen(recorder_);
  ASSERT_EQ(packets.size(), 3U);
  EXPECT_TRUE(packets[2].bytes.ends_with("hello"));
}

TEST_F(SourcePcapTest, UnknownInterfaceSaysWhichThereAre) {
  PcapOptions options;
  options.interface = "lo0o";
  try {
    SourcePcap(options).open(context_);
    FAIL() << "nothing was thrown";
  } catch (const ConfigError& error) {
    EXPECT_EQ(error.option(), "interface");
    EXPECT_THAT(error.what(), HasSubstr("lo"));
  }
}

}  // namespace
}  // namespace millrace
