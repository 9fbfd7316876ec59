#include "sink_file.h"

#include <filesystem>
#include <fstream>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "millrace/testing.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

Verdict example() {
  Verdict verdict;
  verdict.session.id.fill(0xAB);
  verdict.session.key.protocol = 6;
  verdict.session.key.low = {10, 0, 0, 1};
  verdict.session.key.high = {10, 0, 0, 2};
  verdict.session.key.low_port = 80;
  verdict.session.key.high_port = 40000;
  verdict.session.src_is_low = false;
  verdict.session.packets = 3;
  verdict.session.bytes = 300;
  verdict.session.payload_bytes = 120;
  verdict.session.first_seen = Timestamp(std::chrono::seconds(1));
  verdict.session.last_seen = Timestamp(std::chrono::nanoseconds(2000000001));
  verdict.label = "say \"hi\", all";
  verdict.model = "m";
  verdict.confidence = 0.98767F;
  return verdict;
}

class SinkFileTest : public ::testing::Test {
 protected:
  SinkFileTest()
      : path_(std::filesystem::temp_directory_path() /
              ("sink-file-" + std::to_string(::getpid()) + "-" +
               ::testing::UnitTest::GetInstance()->current_test_info()->name())) {}
  ~SinkFileTest() override { std::filesystem::remove(path_); }
  SinkFileTest(const SinkFileTest&) = delete;
  SinkFileTest& operator=(const SinkFileTest&) = delete;

  [[nodiscard]] std::string content() const {
    std::stringstream text;
    text << std::ifstream(path_).rdbuf();
    return text.str();
  }

  void run(FileOptions options, int rows) {
    options.path = path_;
    SinkFile sink(options);
    testing::TestContext context;
    sink.open(context);
    Batch<Verdict> batch(std::vector<Verdict>(static_cast<std::size_t>(rows), example()));
    sink.write(batch);
    sink.flush();
  }

  std::filesystem::path path_;
};

TEST_F(SinkFileTest, JsonLineHasTheDocumentedFieldsInOrder) {
  run({}, 1);
  EXPECT_EQ(
      content(),
      R"({"session":"abababababababababababababababab","protocol":"tcp","src":"10.0.0.2",)"
      R"("src_port":40000,"dst":"10.0.0.1","dst_port":80,)"
      R"("first_seen":"1970-01-01T00:00:01.000000000Z","last_seen":"1970-01-01T00:00:02.000000001Z",)"
      R"("packets":3,"bytes":300,"payload_bytes":120,"reason":"full","label":"say \"hi\", all",)"
      R"("confidence":0.9877,"model":"m"})"
      "\n");
}

TEST_F(SinkFileTest, CsvQuotesWhatNeedsIt) {
  run({.path = {}, .format = RowFormat::csv}, 1);
  EXPECT_THAT(content(), StartsWith("session,protocol,src,src_port,"));
  EXPECT_THAT(content(), HasSubstr(",full,\"say \"\"hi\"\", all\",0.9877,m\r\n"));
}

TEST_F(SinkFileTest, TableEndsWithASummary) {
  run({.path = {}, .format = RowFormat::table}, 3);
  EXPECT_THAT(content(), HasSubstr("10.0.0.2:40000"));
  EXPECT_THAT(content(), HasSubstr("all                       3\n"));
}

TEST_F(SinkFileTest, AppendKeepsOneHeader) {
  const FileOptions options{.path = {}, .format = RowFormat::csv, .append = true};
  run(options, 1);
  run(options, 1);
  const std::string text = content();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 3);
  EXPECT_EQ(text.find("session,"), text.rfind("session,"));
}

TEST_F(SinkFileTest, ReceiptIsResolvedWhenTheLinesAreWritten) {
  FileOptions options;
  options.path = path_;
  SinkFile sink(options);
  testing::TestContext context;
  sink.open(context);
  testing::WatchedReceipt watched;
  Batch<Verdict> batch({example()});
  batch.receipt = watched.make();
  sink.write(batch);
  EXPECT_EQ(watched.pending(), 1);
  Batch<Verdict> idle;
  sink.write(idle);
  EXPECT_EQ(watched.done(), 1);
  EXPECT_FALSE(content().empty());
}

TEST_F(SinkFileTest, FullDiskIsTransientAndLosesNothing) {
  FileOptions options;
  options.path = "/dev/full";
  SinkFile sink(options);
  testing::TestContext context;
  sink.open(context);
  testing::WatchedReceipt watched;
  Batch<Verdict> batch({example()});
  batch.receipt = watched.make();
  sink.write(batch);
  EXPECT_THROW(sink.flush(), Transient);
  EXPECT_EQ(watched.pending(), 1);
}

TEST_F(SinkFileTest, FolderThatIsNotThereIsAConfigurationError) {
  FileOptions options;
  options.path = "/nonexistent/folder/x";
  SinkFile sink(options);
  testing::TestContext context;
  EXPECT_THROW(sink.open(context), ConfigError);
}

}  // namespace
}  // namespace millrace
