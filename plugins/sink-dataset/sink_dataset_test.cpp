#include "sink_dataset.h"

#include <array>
#include <csignal>
#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include "millrace/testing.h"

#include "data_files.h"

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
        options_{.path = folder_ / "data", .label = "web", .bytes = 4} {}
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
  static Session of_agent(std::span<const SessionPacket> packets, std::string_view agent) {
    Session made = session(packets);
    made.info.agent = agent;
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
  [[nodiscard]] bool is_there(const std::string& name) const {
    return fs::exists(fs::path(options_.path) / name);
  }

  fs::path folder_;
  DatasetOptions options_;
  testing::TestContext context_;
  const std::array<SessionPacket, 1> three_{packet(3)};
  const std::array<SessionPacket, 1> two_{packet(2)};
  const std::array<SessionPacket, 1> one_{packet(1)};  ///< a keep-alive
};

TEST_F(SinkDatasetTest, WritesIdxAndAccountsForEverySession) {
  SinkDataset sink(options_);
  sink.open(context_);
  testing::WatchedReceipt receipt;
  const std::array<SessionPacket, 2> both = {packet(1), packet(3)};
  for (int i = 0; i < 2; ++i) {
    Batch<Session> batch({session(both), session(one_)});
    batch.receipt = receipt.make();
    sink.write(batch);
    batch.receipt.done();  // as the host does
  }
  EXPECT_EQ(receipt.pending(), 1) << "the row is not in a file yet";
  EXPECT_FALSE(is_there("labels.txt"));
  sink.flush();
  EXPECT_EQ(receipt.done(), 2);
  EXPECT_EQ(file("train-images-idx3-ubyte"),
            std::string("\0\0\x08\x03\0\0\0\x01\0\0\0\x02\0\0\0\x02\x01\x02\x03\0", 20));
  EXPECT_EQ(file("train-labels-idx1-ubyte"), std::string("\0\0\x08\x01\0\0\0\x01\0", 9));
  EXPECT_EQ(file("labels.txt"), "web\n");
  EXPECT_FALSE(is_there("dev-images-idx3-ubyte"));
  EXPECT_FALSE(is_there("sessions.csv"));
  EXPECT_EQ(context_.handled_items(), 1U);
  EXPECT_EQ(context_.all_dropped(),
            (std::map<std::string, std::uint64_t>{{"no-payload", 2},
                                                  {"duplicate", 1},
                                                  {"ambiguous", 0},
                                                  {"beyond-max-sessions", 0},
                                                  {"no-label", 0}}));
}

TEST_F(SinkDatasetTest, TheAgentCanBeTheLabel) {
  options_.label.clear();
  options_.label_from = LabelFrom::agent;
  run({of_agent(three_, "web"), of_agent(two_, "mail"), session(three_)});
  EXPECT_EQ(file("labels.txt"), "mail\nweb\n");
  const std::string images = file("train-images-idx3-ubyte").substr(16);
  const std::string labels = file("train-labels-idx1-ubyte").substr(8);
  EXPECT_EQ(labels[images.find(std::string("\1\2\3\0", 4)) / 4], 1);
  EXPECT_EQ(labels[images.find(std::string("\1\2\0\0", 4)) / 4], 0);
  EXPECT_EQ(context_.dropped_for("no-label"), 1U);
}

TEST_F(SinkDatasetTest, AnAgentThatCanBeNoClassIsRejected) {
  options_.label.clear();
  options_.label_from = LabelFrom::agent;
  SinkDataset sink(options_);
  sink.open(context_);
  Batch<Session> batch({of_agent(three_, "web"), of_agent(three_, "two\nlines")});
  try {
    sink.write(batch);
    FAIL() << "labels.txt has one name a line";
  } catch (const Rejected& error) {
    EXPECT_EQ(error.items(), std::vector<std::size_t>{1});
    EXPECT_THAT(error.what(), HasSubstr("line break"));
  }
}

TEST_F(SinkDatasetTest, ATableCanNameTheLabels) {
  fs::create_directories(folder_);
  std::ofstream(folder_ / "labels.csv") << "session,class\n" << std::string(32, '1') << ",web\n";
  options_.label.clear();
  options_.label_from = LabelFrom::table;
  options_.labels = folder_ / "labels.csv";
  options_.label_column = "class";
  Session known = session(three_);
  known.info.id.fill(0x11);
  run({known, session(two_)});
  EXPECT_EQ(file("labels.txt"), "web\n");
  EXPECT_EQ(file("train-images-idx3-ubyte").size(), 16U + 4U);
  EXPECT_EQ(context_.dropped_for("no-label"), 1U);
}

TEST_F(SinkDatasetTest, ShapeIsSquareWherePossible) {
  options_.bytes = 784;
  run({session(three_)});
  EXPECT_EQ(file("train-images-idx3-ubyte").substr(8, 8), std::string("\0\0\0\x1C\0\0\0\x1C", 8));
  EXPECT_EQ(file("train-images-idx3-ubyte").size(), 16U + 784U);
  options_.bytes = 5;
  run({session(three_)});
  EXPECT_EQ(file("train-images-idx3-ubyte").substr(8),
            std::string("\0\0\0\1\0\0\0\5\1\2\3\0\0", 13));
}

TEST_F(SinkDatasetTest, OptionsReachTheFeaturizer) {
  options_.padding = 0xFF;
  options_.layer = Layer::l4;
  options_.bytes = 9;
  options_.min_payload = 1;
  std::array<SessionPacket, 2> packets = {packet(1), packet(2)};
  packets[1].fragment = true;
  run({session(packets)});
  EXPECT_EQ(file("train-images-idx3-ubyte").substr(16), "\x40\x41\x01\xFF\xFF\xFF\xFF\xFF\xFF");
  options_.fragments = true;
  run({session(packets)});
  EXPECT_EQ(file("train-images-idx3-ubyte").substr(16), "\x40\x41\x01\x40\x41\x01\x02\xFF\xFF");
}

TEST_F(SinkDatasetTest, IndexNamesTheSessionOfEveryRow) {
  options_.index = true;
  Session first = session(three_);
  first.info.id.fill(0xAB);
  first.info.key.low = {10, 0, 0, 1};
  first.info.key.high = {10, 0, 0, 2};
  first.info.key.low_port = 80;
  first.info.key.high_port = 4000;
  first.info.src_is_low = false;
  run({session(one_), first, first});
  EXPECT_EQ(file("sessions.csv"),
            "part,image,session,protocol,src,src_port,dst,dst_port\r\n"
            "train,0,abababababababababababababababab,tcp,10.0.0.2,4000,10.0.0.1,80\r\n");
  options_.index = false;
  run({first});
  EXPECT_FALSE(is_there("sessions.csv")) << "it speaks of the rows of an earlier run";
}

TEST_F(SinkDatasetTest, PartsOfAnEarlierRunDoNotStay) {
  options_.dev_share = 0.5;
  run({session(three_), session(two_)});
  EXPECT_EQ(file("dev-images-idx3-ubyte").size(), 16U + 4U);
  {
    // A pipeline that fails to start closes the stage right after it was opened.
    SinkDataset sink(options_);
    sink.open(context_);
  }
  EXPECT_EQ(file("train-images-idx3-ubyte").size(), 16U + 4U);
  options_.dev_share = 0;
  run({session(three_), session(two_)});
  EXPECT_EQ(file("train-images-idx3-ubyte").size(), 16U + 8U);
  EXPECT_FALSE(is_there("dev-images-idx3-ubyte"));
  EXPECT_FALSE(is_there("dev-labels-idx1-ubyte"));
}

TEST_F(SinkDatasetTest, InputThatIsNotWholeReplacesNothing) {
  for (const DataFormat format : {DataFormat::idx, DataFormat::npz}) {
    options_.format = format;
    const std::string name = format == DataFormat::idx ? "train-images-idx3-ubyte" : "dataset.npz";
    run({session(three_)});
    const std::string before = file(name);
    context_.set_incomplete("'capture' was stopped after 40 % of its input");
    try {
      run({session(two_)});
      FAIL() << "half of the input was written";
    } catch (const std::runtime_error& error) {
      EXPECT_THAT(error.what(), AllOf(HasSubstr(options_.path), HasSubstr("stays as it was"),
                                      HasSubstr("40 % of its input")));
    }
    EXPECT_EQ(file(name), before);
    context_.set_incomplete("");
    run({session(two_)});
    EXPECT_NE(file(name), before);
  }
}

TEST_F(SinkDatasetTest, InputWithoutASessionReplacesNothing) {
  run({session(three_)});
  const std::string before = file("train-images-idx3-ubyte");
  for (const std::vector<Session>& sessions : {std::vector<Session>{}, {session(one_)}}) {
    try {
      run(sessions);
      FAIL() << "a data set without rows was written";
    } catch (const std::runtime_error& error) {
      EXPECT_THAT(error.what(), AllOf(HasSubstr("no session came"), HasSubstr("stays as it was")));
    }
    EXPECT_EQ(file("train-images-idx3-ubyte"), before);
  }
}

// Real writes that are cut short: the earlier files stay, and the same call works later.
TEST_F(SinkDatasetTest, WriteThatFailsHasNoEffectAndIsMadeAgain) {
  for (const DataFormat format : {DataFormat::idx, DataFormat::npz}) {
    options_.format = format;
    const std::string name = format == DataFormat::idx ? "train-images-idx3-ubyte" : "dataset.npz";
    run({session(three_)});
    const std::string before = file(name);
    SinkDataset sink(options_);
    sink.open(context_);
    testing::WatchedReceipt receipt;
    Batch<Session> batch({session(two_)});
    batch.receipt = receipt.make();
    sink.write(batch);
    const auto handler = std::signal(SIGXFSZ, SIG_IGN);
    rlimit unlimited{};
    ::getrlimit(RLIMIT_FSIZE, &unlimited);
    const rlimit limit{10, unlimited.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    std::string message;
    try {
      sink.flush();
    } catch (const std::runtime_error& error) {
      message = error.what();
    }
    ::setrlimit(RLIMIT_FSIZE, &unlimited);
    std::signal(SIGXFSZ, handler);
    EXPECT_THAT(message, AllOf(HasSubstr(name), HasSubstr("File too large")));
    EXPECT_EQ(receipt.pending(), 1);
    EXPECT_EQ(file(name), before);
    sink.flush();
    EXPECT_NE(file(name), before);
    EXPECT_EQ(receipt.done(), 1);
    for (const auto& entry : fs::directory_iterator(options_.path)) {
      EXPECT_NE(entry.path().extension(), ".part") << entry.path();
    }
  }
}

TEST(ReplacedFileTest, FullDiskIsTransient) {
  const fs::path folder =
      fs::temp_directory_path() / ("replaced-file-" + std::to_string(::getpid()));
  fs::create_directories(folder);
  fs::create_symlink("/dev/full", folder / "x.part");
  try {
    ReplacedFile file(folder / "x");
    file.append("x");
    file.finish();
    ADD_FAILURE() << "the disk is full";
  } catch (const Transient& error) {
    EXPECT_THAT(error.what(), HasSubstr("/x': No space left on device"));
  }
  fs::remove_all(folder);
}

TEST_F(SinkDatasetTest, MoreClassesThanALabelCanCountAreAnError) {
  options_.label.clear();
  options_.label_from = LabelFrom::agent;
  SinkDataset sink(options_);
  sink.open(context_);
  for (int i = 0; i < 256; ++i) {
    const std::string agent = std::to_string(i);
    Batch<Session> batch({of_agent(three_, agent)});
    sink.write(batch);
  }
  Batch<Session> batch({of_agent(three_, "one more")});
  try {
    sink.write(batch);
    FAIL() << "a label is one byte";
  } catch (const std::runtime_error& error) {
    EXPECT_THAT(error.what(), HasSubstr("format = \"npz\""));
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

TEST(SinkDatasetCheck, OneSourceOfLabels) {
  const auto problems = [](const DatasetOptions& options) {
    Findings findings;
    SinkDataset::check(options, findings);
    std::string names;
    for (const auto& finding : findings.list()) names += finding.option + " ";
    return names;
  };
  EXPECT_EQ(problems({.path = "x", .label = "a"}), "");
  EXPECT_EQ(problems({.path = "x"}), "label ");
  EXPECT_EQ(problems({.path = "x", .label = "a\nb"}), "label ");
  EXPECT_EQ(problems({.path = "x", .label_from = LabelFrom::agent}), "");
  EXPECT_EQ(problems({.path = "x", .label_from = LabelFrom::agent, .label = "a"}), "label ");
  EXPECT_EQ(problems({.path = "x", .label_from = LabelFrom::agent, .labels = "l.csv"}), "labels ");
  EXPECT_EQ(problems({.path = "x", .label_from = LabelFrom::table}), "labels ");
  EXPECT_EQ(problems({.path = "x", .label_from = LabelFrom::table, .labels = "l.csv"}), "");
}

}  // namespace
}  // namespace millrace
