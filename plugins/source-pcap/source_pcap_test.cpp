#include "source_pcap.h"

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

  fs::path folder_;
  testing::TestContext context_;
  testing::Recorder<Packet> recorder_;
};

TEST_F(SourcePcapTest, ReadsAllKindsOfClassicFiles) {
  const auto packets = read(classic(3));
  ASSERT_EQ(packets.size(), 3U);
  EXPECT_EQ(packets[1], (Seen{2000000005, 111, std::string(11, 'b'), 1}));
  EXPECT_EQ(recorder_.batches.back().watermark, Timestamp(Duration(3000000005)));
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

TEST_F(SourcePcapTest, CutAnywhereItGivesAllWholePackets) {
  for (const std::string& whole : {classic(3), pcapng(3)}) {
    const auto all = read(whole);
    for (std::size_t size = 1; size < whole.size(); ++size) {
      try {
        const auto packets = read(whole.substr(0, size));
        EXPECT_TRUE(std::equal(packets.begin(), packets.end(), all.begin())) << size;
        EXPECT_LE(packets.size(), all.size());
      } catch (const ConfigError&) {
        EXPECT_LE(size, 60U) << "only a file header that is cut off is an error";
      }
    }
  }
  const std::uint64_t before = context_.counter("truncated-records").value();
  read(classic(3).substr(0, classic(3).size() - 1));
  EXPECT_EQ(context_.counter("truncated-records").value(), before + 1);
  EXPECT_THAT(context_.messages().back().second, HasSubstr("at byte 77;"));
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
