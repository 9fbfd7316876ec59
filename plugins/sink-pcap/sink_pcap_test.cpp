#include "sink_pcap.h"

#include <algorithm>
#include <array>
#include <deque>
#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include "millrace/testing.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class SinkPcapTest : public ::testing::Test {
 protected:
  SinkPcapTest()
      : path_(fs::temp_directory_path() /
              ("sink-pcap-" + std::to_string(::getpid()) +
               ::testing::UnitTest::GetInstance()->current_test_info()->name())) {}
  ~SinkPcapTest() override { fs::remove(path_); }
  SinkPcapTest(const SinkPcapTest&) = delete;
  SinkPcapTest& operator=(const SinkPcapTest&) = delete;

  fs::path path_;
  std::array<std::byte, 4> bytes_ = {std::byte{1}, std::byte{2}, std::byte{3}, std::byte{4}};
};

TEST_F(SinkPcapTest, FileHasHeaderAndRecord) {
  SinkPcap sink({.path = path_});
  testing::TestContext context;
  sink.open(context);
  Batch<Packet> batch(
      {{Timestamp(Duration(1000000002)), bytes_.data(), 4, 1500, LinkType::ethernet}});
  sink.write(batch);
  sink.flush();
  std::ifstream file(path_, std::ios::binary);
  const std::string content{std::istreambuf_iterator<char>(file), {}};
  ASSERT_EQ(content.size(), 24U + 16 + 4);
  EXPECT_EQ(content.substr(0, 8), std::string("\x4d\x3c\xb2\xa1\x02\0\x04\0", 8));
  EXPECT_EQ(content.substr(24, 16), std::string("\x01\0\0\0\x02\0\0\0\x04\0\0\0\xdc\x05\0\0", 16));
}

TEST_F(SinkPcapTest, PacketsOfAnotherLinkTypeAreRejected) {
  SinkPcap sink({.path = path_});
  testing::TestContext context;
  sink.open(context);
  Batch<Packet> batch(
      {{{}, bytes_.data(), 4, 4, LinkType::ethernet}, {{}, bytes_.data(), 4, 4, LinkType::raw}});
  try {
    sink.write(batch);
    FAIL() << "nothing was thrown";
  } catch (const Rejected& error) {
    EXPECT_EQ(error.items(), std::vector<std::size_t>{1});
  }
}

TEST_F(SinkPcapTest, AnEarlierFileStaysUntilThereIsSomethingToReplaceItWith) {
  const auto size = [this] { return fs::file_size(path_); };
  std::ofstream(path_) << std::string(1000, 'x');
  testing::TestContext context;
  { testing::Driven<SinkPcap> fails_to_start(context, PcapFileOptions{.path = path_}); }
  EXPECT_EQ(size(), 1000U);
  {
    testing::Driven<SinkPcap> sink(context, PcapFileOptions{.path = path_});
    context.set_incomplete("a stage failed");
    sink.flush();
  }
  EXPECT_EQ(size(), 1000U);
  context.set_incomplete("");
  testing::Driven<SinkPcap> sink(context, PcapFileOptions{.path = path_});
  sink.write(Batch<Packet>({{{}, bytes_.data(), 4, 4, LinkType::ethernet}}));
  EXPECT_EQ(size(), 24U + 16 + 4);
  sink.flush();
  EXPECT_EQ(size(), 24U + 16 + 4);
  testing::Driven<SinkPcap> empty(context, PcapFileOptions{.path = path_});
  empty.flush();
  EXPECT_EQ(size(), 24U) << "a capture without packets";
}

TEST_F(SinkPcapTest, FullDiskIsTransientAtTheNextCall) {
  SinkPcap sink({.path = "/dev/full"});
  testing::TestContext context;
  sink.open(context);
  Batch<Packet> batch({{{}, bytes_.data(), 4, 4, LinkType::ethernet}});
  sink.write(batch);
  EXPECT_THROW(sink.flush(), Transient);
}

/// Many files in a folder.
class SinkPcapFilesTest : public ::testing::Test {
 protected:
  SinkPcapFilesTest()
      : folder_(fs::temp_directory_path() /
                ("sink-pcap-" + std::to_string(::getpid()) +
                 ::testing::UnitTest::GetInstance()->current_test_info()->name())),
        options_{.path = folder_ / "out", .file_per = FilePer::session} {
    fs::create_directories(folder_);
  }
  ~SinkPcapFilesTest() override { fs::remove_all(folder_); }
  SinkPcapFilesTest(const SinkPcapFilesTest&) = delete;
  SinkPcapFilesTest& operator=(const SinkPcapFilesTest&) = delete;

  /// One batch for each packet.
  void run(const std::vector<Packet>& packets) {
    SinkPcap sink(options_);
    sink.open(context_);
    for (const Packet& packet : packets) {
      Batch<Packet> batch({packet});
      sink.write(batch);
    }
    sink.flush();
  }
  /// The sizes of the packets in each file, by its name in the folder: "a.pcap 52 52".
  [[nodiscard]] std::vector<std::string> files() const {
    std::vector<std::string> list;
    for (const auto& entry : fs::recursive_directory_iterator(options_.path)) {
      if (!entry.is_regular_file()) continue;
      std::ifstream file(entry.path(), std::ios::binary);
      const std::string content{std::istreambuf_iterator<char>(file), {}};
      std::string line = entry.path().lexically_relative(options_.path);
      for (std::size_t at = 24; at + 16 <= content.size();) {
        const auto size = static_cast<unsigned char>(content[at + 8]);
        line += " " + std::to_string(size);
        at += 16U + size;
      }
      list.push_back(line);
    }
    std::ranges::sort(list);
    return list;
  }
  Packet udp(std::uint8_t src, std::uint16_t port, std::size_t payload, Duration time = {}) {
    return packets_.add({.src = src, .src_port = port, .payload = payload}, time);
  }

  fs::path folder_;
  PcapFileOptions options_;
  testing::TestContext context_;
  testing::Packets packets_;
};

TEST_F(SinkPcapFilesTest, EverySessionHasItsFileBothDirectionsTogether) {
  const Packet back =
      packets_.add({.src = 2, .dst = 1, .src_port = 80, .dst_port = 1000, .payload = 3});
  // The same with one file open at a time, and after a run that left other content.
  for (const std::uint32_t most : {256U, 1U}) {
    options_.max_open = most;
    run({udp(1, 1000, 1), udp(1, 1001, 2), back, udp(1, 1001, 4), udp(1, 1000, 5)});
    EXPECT_THAT(files(), ElementsAre("udp_10.0.0.1_1000_10.0.0.2_80.pcap 43 45 47",
                                     "udp_10.0.0.1_1001_10.0.0.2_80.pcap 44 46"));
  }
}

TEST_F(SinkPcapFilesTest, OpenFilesStayWithinTheLimit) {
  std::deque<CaptureWriter::File> list;  // outlives the writer
  CaptureWriter writer(3);
  for (int i = 0; i < 20; ++i) list.emplace_back(folder_ / std::to_string(i));
  for (int round = 0; round < 3; ++round) {
    for (CaptureWriter::File& file : list) {
      writer.add(file, udp(1, 1, 1));
      writer.write_out();
      EXPECT_LE(writer.open(), 3U);
    }
  }
  for (const CaptureWriter::File& file : list) EXPECT_EQ(fs::file_size(file.path), 24U + 3 * 59U);
}

TEST_F(SinkPcapFilesTest, AgentsAreFoldersAndTheirSessionsApart) {
  const Origin web{"web", {}};
  const Origin odd{"../a", {}};
  Packet first = udp(1, 1000, 1);
  Packet second = first;
  first.origin = &web;
  second.origin = &odd;
  run({first, second, first});
  EXPECT_THAT(files(), ElementsAre("%2E.%2Fa/udp_10.0.0.1_1000_10.0.0.2_80.pcap 43",
                                   "web/udp_10.0.0.1_1000_10.0.0.2_80.pcap 43 43"));
}

TEST_F(SinkPcapFilesTest, FragmentsJoinTheirSessionAndWhatHasNoneIsCounted) {
  const Packet part = packets_.add({.payload = 8, .fragment = 0x2000, .id = 7});
  const Packet rest = packets_.add({.payload = 16, .fragment = 0x0001, .id = 7});
  const Packet lost = packets_.add({.payload = 16, .fragment = 0x0001, .id = 8});
  const Packet arp = packets_.raw(std::vector<std::uint8_t>(60));
  run({part, rest, lost, arp});
  EXPECT_THAT(files(), ElementsAre("udp_10.0.0.1_1000_10.0.0.2_80.pcap 50 50"));
  EXPECT_EQ(context_.dropped_for("lost-fragment"), 1U);
  EXPECT_EQ(context_.dropped_for("not-ip"), 1U);
}

TEST_F(SinkPcapFilesTest, EveryLabelHasItsFile) {
  options_.file_per = FilePer::label;
  const Origin web{"web", {}};
  Packet first = udp(1, 1000, 1);
  Packet second = udp(1, 1001, 2);
  first.origin = second.origin = &web;
  run({first, second, udp(1, 1002, 3)});
  EXPECT_THAT(files(), ElementsAre("web.pcap 43 44"));
  EXPECT_EQ(context_.dropped_for("no-label"), 1U);
}

TEST_F(SinkPcapFilesTest, LabelsFromATableHoldFromTheirTime) {
  std::ofstream(folder_ / "labels.csv")
      << "session,protocol,src,src_port,dst,dst_port,first_seen,label\n"
         "a,udp,10.0.0.1,1000,10.0.0.2,80,1970-01-01T00:00:10Z,a/b\n"
         "b,udp,10.0.0.1,1000,10.0.0.2,80,1970-01-01T00:00:20Z,mail\n";
  options_.file_per = FilePer::label;
  options_.label_from = PacketLabel::table;
  options_.labels = folder_ / "labels.csv";
  using std::chrono::seconds;
  run({udp(1, 1000, 1, seconds(10)), udp(1, 1000, 2, seconds(19)), udp(1, 1000, 3, seconds(20)),
       udp(1, 1000, 4, seconds(9)), udp(1, 1001, 5, seconds(20))});
  EXPECT_THAT(files(), ElementsAre("a%2Fb.pcap 43 44", "mail.pcap 45"));
  EXPECT_EQ(context_.dropped_for("no-label"), 2U);
}

TEST_F(SinkPcapFilesTest, MemoryIsBounded) {
  options_.max_sessions = 2;
  run({udp(1, 1000, 1), udp(1, 1001, 1), udp(1, 1002, 1), udp(1, 1000, 1)});
  EXPECT_EQ(files().size(), 2U);
  EXPECT_EQ(context_.dropped_for("beyond-max-sessions"), 1U);
}

TEST_F(SinkPcapFilesTest, ALinkTypeOfItsOwnForEveryFile) {
  SinkPcap sink(options_);
  sink.open(context_);
  const auto ip = testing::Packets::ipv4({.src_port = 1001});
  Batch<Packet> batch({udp(1, 1000, 1), packets_.raw(ip, {}, LinkType::raw), udp(1, 1001, 2)});
  try {
    sink.write(batch);
    FAIL() << "nothing was thrown";
  } catch (const Rejected& error) {
    EXPECT_EQ(error.items(), std::vector<std::size_t>{2});
  }
  batch.items.pop_back();
  sink.write(batch);
  EXPECT_THAT(files(), ElementsAre("udp_10.0.0.1_1000_10.0.0.2_80.pcap 43",
                                   "udp_10.0.0.1_1001_10.0.0.2_80.pcap 38"));
}

TEST_F(SinkPcapFilesTest, FullDiskIsTransientAndHoldsTheReceipt) {
  const fs::path name = "udp_10.0.0.1_1000_10.0.0.2_80.pcap";
  SinkPcap sink(options_);
  sink.open(context_);
  fs::create_symlink("/dev/full", fs::path(options_.path) / name);
  testing::WatchedReceipt receipt;
  Batch<Packet> batch({udp(1, 1001, 1), udp(1, 1000, 2)});
  batch.receipt = receipt.make();
  sink.write(batch);
  EXPECT_EQ(receipt.pending(), 1);
  Batch<Packet> next({udp(1, 1001, 3)});
  EXPECT_THROW(sink.write(next), Transient);
  EXPECT_EQ(next.items.size(), 1U);
  EXPECT_EQ(receipt.pending(), 1);
}

TEST_F(SinkPcapFilesTest, MistakesAreConfigurationErrors) {
  const auto problems = [](const PcapFileOptions& options) {
    Findings findings;
    SinkPcap::check(options, findings);
    std::string names;
    for (const auto& finding : findings.list()) names += finding.option + " ";
    return names;
  };
  EXPECT_EQ(problems({.path = "-"}), "");
  EXPECT_EQ(problems({.path = "-", .file_per = FilePer::session}), "path ");
  EXPECT_EQ(problems({.path = "x", .labels = "l.csv"}), "labels ");
  EXPECT_EQ(problems({.path = "x", .file_per = FilePer::label, .label_from = PacketLabel::table}),
            "labels ");
  EXPECT_EQ(problems({.path = "x", .file_per = FilePer::label}), "");
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  options_.max_open = 1U << 20U;
  if (limit.rlim_cur > options_.max_open) GTEST_SKIP() << "so many files may be open here";
  try {
    SinkPcap(options_).open(context_);
    FAIL() << "so many files cannot be open";
  } catch (const ConfigError& error) {
    EXPECT_EQ(error.option(), "max_open");
    EXPECT_THAT(error.what(), HasSubstr("ulimit -n"));
  }
  options_.max_open = 1;
  options_.path = "/dev/null/x";
  EXPECT_THROW(SinkPcap(options_).open(context_), ConfigError);
}

}  // namespace
}  // namespace millrace
