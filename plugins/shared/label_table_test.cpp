#include "label_table.h"

#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "millrace/error.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;

class LabelTableTest : public ::testing::Test {
 protected:
  LabelTableTest()
      : path_(fs::temp_directory_path() /
              ("label-table-" + std::to_string(::getpid()) + "-" +
               ::testing::UnitTest::GetInstance()->current_test_info()->name())) {}
  ~LabelTableTest() override { fs::remove(path_); }
  LabelTableTest(const LabelTableTest&) = delete;
  LabelTableTest& operator=(const LabelTableTest&) = delete;

  LabelTable read(const std::string& text, const LabelTable::Columns& columns = {}) {
    std::ofstream(path_, std::ios::binary) << text;
    return {path_, columns, 4};
  }
  /// Empty if nothing is wrong.
  std::string problem(const std::string& text, const LabelTable::Columns& columns = {}) {
    try {
      read(text, columns);
      return {};
    } catch (const ConfigError& error) {
      return error.option() + " " + fs::path(error.what()).filename().string();
    }
  }

  fs::path path_;
};

SessionInfo with_id(std::uint8_t byte) {
  SessionInfo info;
  info.id.fill(byte);
  return info;
}

FiveTuple web_key() {
  FiveTuple key;
  key.protocol = 6;
  key.low = {10, 0, 0, 1};
  key.high = {10, 0, 0, 2};
  key.low_port = 80;
  key.high_port = 4000;
  return key;
}

std::string found(const std::string* label) { return label == nullptr ? "-" : *label; }

TEST_F(LabelTableTest, FindsSessionsById) {
  const LabelTable table = read(
      "\xEF\xBB\xBFnote,session,label\r\n"
      "\"two\nlines, and \"\"quotes\"\"\",ABababababababababababababababab,web\r\n"
      "\r\n"
      ",01010101010101010101010101010101,\"Weibo, old\"\n"
      ",02020202020202020202020202020202,");
  EXPECT_EQ(found(table.find(with_id(0xAB))), "web");
  EXPECT_EQ(found(table.find(with_id(1))), "Weibo, old");
  EXPECT_EQ(found(table.find(with_id(2))), "-");
  EXPECT_EQ(found(table.find(with_id(3))), "-");
}

TEST_F(LabelTableTest, FindsFiveTuplesInBothDirections) {
  const LabelTable table = read(
      "protocol,src,src_port,dst,dst_port,class\n"
      "tcp,10.0.0.2,4000,10.0.0.1,80,web\n"
      "17,2001:db8::1,53,2001:db8::2,999,dns\n",
      {"class"});
  EXPECT_EQ(found(table.find(web_key(), kNoTime)), "web");
  FiveTuple key;
  key.protocol = 17;
  key.family = 6;
  key.low = {0x20, 0x01, 0x0D, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
  key.high = key.low;
  key.high[15] = 2;
  key.low_port = 53;
  key.high_port = 999;
  SessionInfo session;
  session.key = key;
  EXPECT_EQ(found(table.find(session)), "dns");
  key.high_port = 998;
  EXPECT_EQ(found(table.find(key, kNoTime)), "-");
}

TEST_F(LabelTableTest, ARowHoldsFromItsTimeToTheNext) {
  const LabelTable table = read(
      "session,protocol,src,src_port,dst,dst_port,first_seen,label\n"
      "x,tcp,10.0.0.1,80,10.0.0.2,4000,2016-05-04T10:00:00.5Z,late\n"
      "x,tcp,10.0.0.2,4000,10.0.0.1,80,2016-05-04T09:00:00Z,early\n",
      {"label", false});
  const Timestamp late = std::chrono::sys_days(std::chrono::year(2016) / 5 / 4) +
                         std::chrono::hours(10) + std::chrono::milliseconds(500);
  EXPECT_EQ(to_rfc3339(late), "2016-05-04T10:00:00.500000000Z");
  EXPECT_EQ(found(table.find(web_key(), late)), "late");
  EXPECT_EQ(found(table.find(web_key(), late - Duration(1))), "early");
  EXPECT_EQ(found(table.find(web_key(), late - std::chrono::hours(2))), "-");
}

TEST_F(LabelTableTest, MistakesNameFileAndLine) {
  const std::string name = path_.filename();
  const std::string id(32, '0');
  EXPECT_EQ(problem(""), "labels " + name + ":1: expected a header with the names of the columns");
  EXPECT_THAT(problem("session,Label\n"), AllOf(HasSubstr("label_column " + name + ":1: "),
                                                HasSubstr("did you mean 'Label'?")));
  EXPECT_THAT(problem("protocol,src,src_port,dst,label\n"), EndsWith("'dst_port' is not there"));
  EXPECT_THAT(problem("session,label\n\n" + id + ",a\n" + id + "\n"),
              EndsWith(name + ":4: 1 fields; the header names 2 columns"));
  EXPECT_THAT(problem("session,label\n123,a\n"),
              EndsWith(name + ":2: '123' is no session id; expected 32 hexadecimal digits"));
  EXPECT_THAT(problem("session,label\n" + id + ",a\n" + id + ",a\n" + id + ",b\n"),
              EndsWith(":4: the session has the label 'b' here and 'a' in a line before"));
  EXPECT_THAT(problem("session,label\n" + id + ",a\"b\n"), HasSubstr(":2: a quote inside a field"));
  EXPECT_THAT(problem("session,label\n\"" + id + "\n,a\n"),
              HasSubstr(":2: a quoted field begins here and does not end"));
  EXPECT_THAT(problem("session,label\n" + id + ",\"a\nb\"\n"), HasSubstr("line break"));
  EXPECT_THAT(problem("session,label\n" + id + ",\xFF\n"), HasSubstr("not UTF-8"));
  const std::string five = "protocol,src,src_port,dst,dst_port,first_seen,label\n";
  EXPECT_THAT(problem(five + "tpc,1.1.1.1,1,1.1.1.2,2,,a\n"),
              HasSubstr(":2: 'tpc' is no protocol"));
  EXPECT_THAT(problem(five + "tcp,1.1.1,1,1.1.1.2,2,,a\n"), HasSubstr("'1.1.1' is no IP address"));
  EXPECT_THAT(problem(five + "tcp,1.1.1.1,1,::1,2,,a\n"), HasSubstr("IPv4, the other of IPv6"));
  EXPECT_THAT(problem(five + "tcp,1.1.1.1,1,1.1.1.2,65536,,a\n"), HasSubstr("'65536' is no port"));
  for (const std::string time :
       {"yesterday", "2016-13-04T10:11:12Z", "2016-05-04T10:11:12", "2016-05-04T10:11:12.Z",
        "2016-05-04T10:11:12,5Z",
        // What 64 bits of nanoseconds cannot hold, and hours that are none.
        "4040-01-01T00:00:00Z", "2262-04-12T00:00:00Z", "1677-09-20T00:00:00Z",
        "0000-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z", "2016-05-04T25:00:00Z",
        "2016-05-04T10:60:00Z"}) {
    EXPECT_THAT(problem(five + "tcp,1.1.1.1,1,1.1.1.2,2,\"" + time + "\",a\n"),
                HasSubstr("'" + time + "' is no time"));
  }
  std::string rows = "session,label\n";
  for (int i = 0; i < 5; ++i) rows += id + ",a\n";
  EXPECT_THAT(problem(rows), EndsWith(":6: more than 4 rows ('max_sessions')"));
  fs::remove(path_);
  EXPECT_THROW(LabelTable("/no/such/file", {}, 4), ConfigError);
}

}  // namespace
}  // namespace millrace
