#include "sink_dataset.h"

#include <array>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "millrace/testing.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::string content(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// One TCP packet as a session holds it: two bytes of link header, two of transport header.
constexpr std::array kFrame = {std::byte{0xE0}, std::byte{0xE1}, std::byte{0x40}, std::byte{0x41},
                               std::byte{1},    std::byte{2},    std::byte{3}};

SessionPacket packet(std::size_t payload) {
  return {{}, kFrame.data(), static_cast<std::uint32_t>(4 + payload), 2, 4, true, false};
}

class SinkDatasetTest : public ::testing::Test {
 protected:
  SinkDatasetTest()
      : folder_(fs::temp_directory_path() /
                ("sink-dataset-" + std::to_string(::getpid()) + "-" +
                 ::testing::UnitTest::GetInstance()->current_test_info()->name())),
        options_{.path = folder_ / "web", .label = "web", .bytes = 4} {}
  ~SinkDatasetTest() override { fs::remove_all(folder_); }
  SinkDatasetTest(const SinkDatasetTest&) = delete;
  SinkDatasetTest& operator=(const SinkDatasetTest&) = delete;

  [[nodiscard]] std::string file(const std::string& name) const {
    return content(fs::path(options_.path) / name);
  }
  /// A session of `packets`, which must outlive it.
  static Session session(std::span<const SessionPacket> packets) {
    Session made;
    made.packets = packets;
    made.layer = Layer::l2;
    made.info.key.protocol = 6;
    return made;
  }
  void run(std::vector<Session> sessions) {
    SinkDataset sink(options_);
    sink.open(context_);
    Batch<Session> batch(std::move(sessions));
    sink.write(batch);
    sink.flush();
    sink.close();
  }

  fs::path folder_;
  DatasetOptions options_;
  testing::TestContext context_;
  const std::array<SessionPacket, 1> three_{packet(3)};
  const std::array<SessionPacket, 1> one_{packet(1)};  ///< a keep-alive
};

TEST_F(SinkDatasetTest, WritesIdxAndDropsSessionsWithoutPayload) {
  SinkDataset sink(options_);
  sink.open(context_);
  const std::array<SessionPacket, 2> both = {packet(1), packet(3)};
  Batch<Session> batch({session(both), session(one_)});
  sink.write(batch);
  // Whole before the end of the run.
  EXPECT_EQ(file("images-idx3-ubyte"),
            std::string("\0\0\x08\x03\0\0\0\x01\0\0\0\x02\0\0\0\x02\x01\x02\x03\0", 20));
  EXPECT_EQ(file("labels-idx1-ubyte"), std::string("\0\0\x08\x01\0\0\0\x01\0", 9));
  EXPECT_EQ(file("labels.txt"), "web\n");
  EXPECT_FALSE(fs::exists(fs::path(options_.path) / "sessions.csv"));
  EXPECT_EQ(context_.dropped_for("no-payload"), 1U);
}

TEST_F(SinkDatasetTest, HeaderCountsWhatIsThereAfterEveryBatch) {
  SinkDataset sink(options_);
  sink.open(context_);
  for (char n = 1; n <= 3; ++n) {
    Batch<Session> batch({session(three_), session(three_)});
    sink.write(batch);
    const std::string images = file("images-idx3-ubyte");
    const std::string labels = file("labels-idx1-ubyte");
    ASSERT_EQ(images.size(), 16U + 8U * static_cast<std::size_t>(n));
    ASSERT_EQ(labels.size(), 8U + 2U * static_cast<std::size_t>(n));
    EXPECT_EQ(images[7], 2 * n);
    EXPECT_EQ(labels[7], 2 * n);
  }
}

TEST_F(SinkDatasetTest, CrashLeavesWhatWasWritten) {
  const pid_t child = ::fork();
  if (child == 0) {
    SinkDataset sink(options_);
    sink.open(context_);
    Batch<Session> batch({session(three_)});
    sink.write(batch);
    ::_exit(0);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  EXPECT_EQ(file("images-idx3-ubyte"),
            std::string("\0\0\x08\x03\0\0\0\x01\0\0\0\x02\0\0\0\x02\x01\x02\x03\0", 20));
}

TEST_F(SinkDatasetTest, ShapeIsSquareWherePossible) {
  options_.bytes = 784;
  run({session(three_)});
  EXPECT_EQ(file("images-idx3-ubyte").substr(8, 8), std::string("\0\0\0\x1C\0\0\0\x1C", 8));
  EXPECT_EQ(file("images-idx3-ubyte").size(), 16U + 784U);
  options_.bytes = 5;
  run({session(three_)});
  EXPECT_EQ(file("images-idx3-ubyte").substr(8), std::string("\0\0\0\1\0\0\0\5\1\2\3\0\0", 13));
}

TEST_F(SinkDatasetTest, OptionsReachTheFeaturizer) {
  options_.padding = 0xFF;
  options_.layer = Layer::l4;
  options_.bytes = 9;
  options_.min_payload = 1;
  std::array<SessionPacket, 2> packets = {packet(1), packet(2)};
  packets[1].fragment = true;
  run({session(packets)});
  EXPECT_EQ(file("images-idx3-ubyte").substr(16), "\x40\x41\x01\xFF\xFF\xFF\xFF\xFF\xFF");
  options_.fragments = true;
  run({session(packets)});
  EXPECT_EQ(file("images-idx3-ubyte").substr(16), "\x40\x41\x01\x40\x41\x01\x02\xFF\xFF");
}

TEST_F(SinkDatasetTest, IndexNamesTheSessionOfEveryImage) {
  options_.index = true;
  Session first = session(three_);
  first.info.id.fill(0xAB);
  first.info.key.low = {10, 0, 0, 1};
  first.info.key.high = {10, 0, 0, 2};
  first.info.key.low_port = 80;
  first.info.key.high_port = 4000;
  first.info.src_is_low = false;
  SinkDataset sink(options_);
  sink.open(context_);
  for (int i = 0; i < 2; ++i) {
    Batch<Session> batch({session(one_), first});
    sink.write(batch);
  }
  const std::string row = ",abababababababababababababababab,tcp,10.0.0.2,4000,10.0.0.1,80\r\n";
  EXPECT_EQ(file("sessions.csv"),
            "image,session,protocol,src,src_port,dst,dst_port\r\n0" + row + "1" + row);
}

TEST_F(SinkDatasetTest, EarlierRunIsReplacedWhenSessionsCome) {
  options_.index = true;
  run({session(three_), session(three_)});
  const std::string before = file("images-idx3-ubyte");
  options_.index = false;
  {
    // A pipeline that fails to start closes the stage right after it was opened.
    SinkDataset sink(options_);
    sink.open(context_);
  }
  EXPECT_EQ(file("images-idx3-ubyte"), before);
  run({session(three_)});
  EXPECT_EQ(file("images-idx3-ubyte").size(), 16U + 4U);
  EXPECT_EQ(file("labels-idx1-ubyte").size(), 8U + 1U);
  EXPECT_FALSE(fs::exists(fs::path(options_.path) / "sessions.csv"));
}

TEST_F(SinkDatasetTest, RunWithoutSessionsLeavesWholeFiles) {
  run({});
  EXPECT_EQ(file("images-idx3-ubyte"), std::string("\0\0\x08\x03\0\0\0\0\0\0\0\x02\0\0\0\x02", 16));
  EXPECT_EQ(file("labels-idx1-ubyte"), std::string("\0\0\x08\x01\0\0\0\0", 8));
}

// A real write that is cut short: what a header counts is there, and the same batch fits later.
TEST_F(SinkDatasetTest, WriteThatFailsHasNoEffectAndIsMadeAgain) {
  SinkDataset sink(options_);
  sink.open(context_);
  Batch<Session> first({session(three_)});
  sink.write(first);
  Batch<Session> second({session(three_), session(three_), session(one_)});
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const rlimit limit{26, before.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &limit);
  std::string message;
  try {
    sink.write(second);
  } catch (const std::runtime_error& error) {
    message = error.what();
  }
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_THAT(message, AllOf(HasSubstr("images-idx3-ubyte"), HasSubstr("File too large")));
  EXPECT_EQ(file("images-idx3-ubyte")[7], 1);
  EXPECT_EQ(context_.dropped_for("no-payload"), 0U);
  sink.write(second);
  EXPECT_EQ(file("images-idx3-ubyte"),
            std::string("\0\0\x08\x03\0\0\0\x03\0\0\0\x02\0\0\0\x02", 16) +
                std::string("\1\2\3\0\1\2\3\0\1\2\3\0", 12));
  EXPECT_EQ(context_.dropped_for("no-payload"), 1U);
}

TEST(PlacedFileTest, FullDiskIsTransient) {
  PlacedFile file;
  file.open("/dev/full");
  try {
    file.write(0, "x");
    FAIL() << "the disk is full";
  } catch (const Transient& error) {
    EXPECT_STREQ(error.what(), "cannot write '/dev/full': No space left on device");
  }
}

TEST_F(SinkDatasetTest, TooHighALayerIsAnErrorThatSaysWhatToDo) {
  options_.layer = Layer::l4;
  SinkDataset sink(options_);
  sink.open(context_);
  Batch<Session> batch({session(three_)});
  batch.items[0].layer = Layer::l7;
  try {
    sink.write(batch);
    FAIL() << "the session holds no l4 bytes";
  } catch (const std::runtime_error& error) {
    EXPECT_THAT(error.what(), HasSubstr("keep = \"l4\""));
  }
}

TEST_F(SinkDatasetTest, FolderThatCannotBeMadeIsAConfigurationError) {
  for (const std::string path : {"/proc/x/y", "/dev/null/x"}) {
    options_.path = path;
    SinkDataset sink(options_);
    try {
      sink.open(context_);
      FAIL() << path;
    } catch (const ConfigError& error) {
      EXPECT_EQ(error.option(), "path");
      EXPECT_THAT(error.what(), HasSubstr(path));
    }
  }
}

TEST(SinkDatasetCheck, LabelIsOneLine) {
  Findings findings;
  SinkDataset::check({.path = "x", .label = ""}, findings);
  SinkDataset::check({.path = "x", .label = "a\nb"}, findings);
  SinkDataset::check({.path = "x", .label = "a"}, findings);
  EXPECT_EQ(findings.list().size(), 2U);
}

}  // namespace
}  // namespace millrace
