#include <map>

#include "binlog_fixture.h"

namespace millrace {
namespace {

using Value = std::optional<std::string>;

/// How a column is declared, what it is given, and how the server is asked for the same text.
struct Sample {
  std::string type;
  std::vector<std::string> values;
  std::string as = "CAST({} AS CHAR CHARACTER SET utf8mb4)";
};

/// Mixed on purpose: signs, character sets and members are told by position among their like.
std::vector<Sample> samples() {
  const std::string number = "CAST({} + 0 AS CHAR)";
  return {
      {"INT", {"0", "-2147483648", "2147483647", "-1"}},
      {"VARCHAR(20)", {"'größe 😀'", "''", "'\\'\"\\\\'"}},
      {"BIT(1)", {"b'1'", "b'0'"}, number},
      {"TINYINT UNSIGNED", {"0", "255", "127"}},
      {"TINYINT", {"-128", "127", "-1"}},
      {"YEAR", {"2026", "1901", "2155", "0"}},
      {"SMALLINT UNSIGNED", {"65535", "0"}},
      {"SMALLINT", {"-32768", "32767"}},
      {"CHAR(10) CHARACTER SET latin1", {"'é€'", "'a '", "''"}},
      {"MEDIUMINT", {"-8388608", "8388607", "-1"}},
      {"MEDIUMINT UNSIGNED", {"16777215", "0"}},
      {"ENUM('red','größe','it''s, \"so\"')", {"'größe'", "'red'", "3"}},
      {"BIGINT", {"-9223372036854775808", "9223372036854775807", "-1"}},
      {"BIGINT UNSIGNED", {"18446744073709551615", "0"}},
      {"DECIMAL(10,2)", {"1.10", "-0.01", "99999999.99", "0", "-99999999.99"}},
      {"DECIMAL(65,30)",
       {"12345678901234567890123456789012345.123456789012345678901234567891", "-0.5", "0"}},
      {"DECIMAL(9,0)", {"123456789", "-1", "0"}},
      {"DECIMAL(18,9) UNSIGNED", {"123456789.987654321", "0.000000001"}},
      {"DECIMAL(5,5)", {"0.12345", "-0.00001"}},
      {"SET('a','größe','c') CHARACTER SET latin1", {"'a,c'", "'größe'", "''", "7"}},
      {"FLOAT", {"0.1", "-1.5", "16777216", "1e20", "1e-20", "0", "123456.7", "3.4e38"}},
      {"DOUBLE",
       {"0.1", "-1.5", "1e15", "999999999999999", "1e14", "1e-14", "1e-15",
        "1.7976931348623157e308", "5e-324", "0", "123456789.123456789", "2.5e-10"}},
      {"DATE", {"'2026-01-02'", "'0000-00-00'", "'9999-12-31'", "'1000-01-01'"}},
      {"TIME", {"'10:11:12'", "'-838:59:59'", "'838:59:59'", "'-00:00:01'", "'00:00:00'"}},
      {"TIME(1)", {"'10:11:12.1'", "'-10:11:12.9'", "'-00:00:00.1'"}},
      {"TIME(2)", {"'10:11:12.12'", "'-10:11:12.01'", "'-00:00:00.99'"}},
      {"TIME(3)", {"'10:11:12.123'", "'-10:11:12.001'", "'-00:00:01.000'"}},
      {"TIME(6)", {"'10:11:12.123456'", "'-838:59:59.999999'", "'-00:00:00.000001'"}},
      {"DATETIME", {"'2026-01-02 03:04:05'", "'0000-00-00 00:00:00'", "'9999-12-31 23:59:59'"}},
      {"DATETIME(3)", {"'2026-01-02 03:04:05.678'", "'2026-01-02 03:04:05.001'"}},
      {"DATETIME(5)", {"'2026-01-02 03:04:05.67890'"}},
      {"DATETIME(6)", {"'2026-01-02 03:04:05.000001'", "'1000-01-01 00:00:00.999999'"}},
      {"TIMESTAMP NULL",
       {"'2026-01-02 03:04:05'", "'1970-01-01 00:00:01'", "'2038-01-19 03:14:07'"}},
      {"TIMESTAMP(2) NULL", {"'2026-07-02 03:04:05.67'"}},
      {"TIMESTAMP(6) NULL", {"'2026-07-02 03:04:05.000001'"}},
      {"BIT(10)", {"b'1000000001'", "0", "1023"}, number},
      {"BIT(64)", {"18446744073709551615", "1"}, number},
      {"CHAR(3)", {"'abc'", "'ö😀'", "''"}},
      {"CHAR(255)", {"REPEAT('ü', 255)", "'x'"}},
      {"VARCHAR(300) CHARACTER SET latin1", {"REPEAT('ü', 300)", "''"}},
      {"VARCHAR(20) CHARACTER SET latin1", {"CONVERT(x'818d8f909d80' USING latin1)"}},
      {"VARCHAR(20) CHARACTER SET cp1251", {"'привет'"}},
      {"CHAR(20) CHARACTER SET sjis", {"'日本'", "'a'"}},
      {"VARCHAR(20) CHARACTER SET utf16", {"'größe 😀'", "''"}},
      {"TINYTEXT", {"'größe'", "''"}},
      {"TEXT CHARACTER SET latin1", {"'größe €'", "REPEAT('x', 60000)"}},
      {"MEDIUMTEXT", {"REPEAT('😀', 70000)", "''"}},
      {"LONGTEXT", {"'größe'", "''"}},
      {"JSON", {"'{\"a\": [1, \"größe\", null]}'", "'[]'"}},
      {"INET6", {"'::1'", "'2001:db8::ff00:42:8329'", "'::ffff:192.0.2.1'", "'::'", "'1::2:0'"}},
      {"INET4", {"'192.0.2.1'", "'0.0.0.0'", "'1.0.0.0'"}},
      {"UUID",
       {"'123e4567-e89b-12d3-a456-426655440000'", "'123e4567-e89b-42d3-a456-426655440000'",
        "'00000000-0000-0000-0000-000000000000'", "'018f4e7e-1b2c-7def-8123-456789abcdef'",
        "'ffffffff-ffff-ffff-ffff-ffffffffffff'"}},
      {"TINYINT(1)", {"1", "0"}},
      {"INT(5) UNSIGNED", {"4294967295", "7"}},
  };
}

std::string replaced(std::string text, const std::string& by) {
  return text.replace(text.find("{}"), 2, by);
}

/// Values have to be the same whether the log tells of columns or the catalog is asked.
class BinlogTypesTest : public BinlogTest, public ::testing::WithParamInterface<const char*> {};

TEST_P(BinlogTypesTest, EveryValueIsTheTextThatTheServerGives) {
  const std::vector<Sample> all = samples();
  std::string columns = "id INT PRIMARY KEY";
  std::string select = "id";
  std::size_t rows = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const std::string name = "c" + std::to_string(i);
    columns += ", " + name + " " + all[i].type;
    select += ", " + replaced(all[i].as, name);
    rows = std::max(rows, all[i].values.size());
  }
  execute({std::string("SET GLOBAL binlog_row_metadata = ") + GetParam(),
           "CREATE TABLE t (" + columns + ") CHARACTER SET utf8mb4"});
  RunningSource source(options_, out_);
  std::vector<std::string> statements{"SET time_zone = '+00:00', sql_mode = ''"};
  for (std::size_t row = 0; row <= rows; ++row) {
    std::string values = std::to_string(row);
    for (const Sample& sample : all) {
      // Rows with a NULL at every second column, and one of nothing else.
      const bool null = row == rows || (row + (&sample - all.data())) % 7 == 5;
      values += ", " + (null ? "NULL" : sample.values[row % sample.values.size()]);
    }
    statements.push_back("INSERT INTO t VALUES (" + values + ")");
  }
  execute(statements);
  ASSERT_TRUE(eventually([&] { return out_.count() > rows || source.ended(); }));
  source.stop();
  ASSERT_EQ(source.failure(), "");
  const auto expected =
      query("SELECT " + select + " FROM t ORDER BY id", "SET time_zone = '+00:00'");
  const std::vector<Change> changes = out_.changes();
  ASSERT_EQ(changes.size(), expected.size());
  for (std::size_t row = 0; row < expected.size(); ++row) {
    ASSERT_EQ(changes[row].after.size(), all.size() + 1);
    for (std::size_t i = 0; i < all.size(); ++i) {
      EXPECT_EQ(changes[row].after[i + 1].first, "c" + std::to_string(i));
      EXPECT_EQ(changes[row].after[i + 1].second, expected[row].at(i + 1))
          << all[i].type << ", row " << row;
    }
  }
}

TEST_P(BinlogTypesTest, BytesAreTakenAsCodePoints) {
  execute({std::string("SET GLOBAL binlog_row_metadata = ") + GetParam(),
           "CREATE TABLE t (v VARBINARY(8), f BINARY(4), l BINARY(16), b BLOB, p POINT, n TEXT)"});
  RunningSource source(options_, out_);
  execute({"INSERT INTO t VALUES (x'00ff7f', 'ab', 'c', x'80', POINT(1, 2), 'ü')",
           "INSERT INTO t (v) VALUES ('')"});
  ASSERT_TRUE(eventually([&] { return out_.count() == 2 || source.ended(); }));
  source.stop();
  ASSERT_EQ(source.failure(), "");
  const Change::Row row = out_.changes()[0].after;
  using namespace std::string_literals;
  EXPECT_EQ(row[0].second, "\0\u00ff\x7f"s);
  EXPECT_EQ(row[1].second, "ab\0\0"s);
  EXPECT_EQ(row[2].second, "c\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"s);
  EXPECT_EQ(row[3].second, "\u0080"s);
  EXPECT_EQ(row[4].second->size(), 26U);  // of 25 bytes one is above 0x7f
  EXPECT_EQ(row[5].second, "ü");
}

TEST_P(BinlogTypesTest, OldFormsOfTimesAreReadWithoutFractions) {
  execute({std::string("SET GLOBAL binlog_row_metadata = ") + GetParam(),
           "SET GLOBAL mysql56_temporal_format = OFF",
           "CREATE TABLE t (id INT, t TIME, d DATETIME, s TIMESTAMP NULL)",
           "CREATE TABLE f (id INT, d DATETIME(3))", "SET GLOBAL mysql56_temporal_format = ON"});
  options_.tables.push_back(table("f"));
  RunningSource source(options_, out_);
  execute({"SET time_zone = '+00:00'",
           "INSERT INTO t VALUES (1, '-12:34:56', '2026-01-02 03:04:05', '2026-01-02 03:04:05')",
           "INSERT INTO f VALUES (2, '2026-01-02 03:04:05.678')"});
  ASSERT_TRUE(eventually([&] { return source.ended(); }));
  source.stop();
  EXPECT_THAT(source.failure(), ::testing::HasSubstr("column 'd' has fractions of seconds"));
  ASSERT_EQ(out_.count(), 1U);
  const Change::Row row = out_.changes()[0].after;
  EXPECT_EQ(row[1].second, "-12:34:56");
  EXPECT_EQ(row[2].second, "2026-01-02 03:04:05");
  EXPECT_EQ(row[3].second, "2026-01-02 03:04:05");
}

TEST_P(BinlogTypesTest, CompressedColumnsAreSaid) {
  execute({std::string("SET GLOBAL binlog_row_metadata = ") + GetParam(),
           "CREATE TABLE t (id INT, v VARCHAR(100) COMPRESSED)"});
  RunningSource source(options_, out_);
  execute({"INSERT INTO t VALUES (1, 'x')"});
  ASSERT_TRUE(eventually([&] { return source.ended(); }));
  source.stop();
  EXPECT_THAT(source.failure(), ::testing::HasSubstr("column 'v': it is COMPRESSED"));
}

INSTANTIATE_TEST_SUITE_P(Metadata, BinlogTypesTest, ::testing::Values("FULL", "NO_LOG", "MINIMAL"));

}  // namespace
}  // namespace millrace
