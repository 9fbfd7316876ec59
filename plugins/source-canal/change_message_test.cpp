#include "change_message.h"

#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace millrace {

namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::SizeIs;

auto value(const std::string& column, const std::string& text) {
  return Pair(column, ::testing::Optional(text));
}
auto null(const std::string& column) { return Pair(column, ::testing::Eq(std::nullopt)); }

ChangeMessage canal(std::string_view text) {
  return read_change_message(MessageFormat::canal, text);
}
ChangeMessage debezium(std::string_view text) {
  return read_change_message(MessageFormat::debezium, text);
}
ChangeMessage maxwell(std::string_view text) {
  return read_change_message(MessageFormat::maxwell, text);
}

std::string error_of(MessageFormat format, std::string_view text) {
  try {
    static_cast<void>(read_change_message(format, text));
  } catch (const std::exception& error) {
    return error.what();
  }
  return "no error";
}

TEST(CanalMessageTest, InsertedRowsHaveNoBefore) {
  const ChangeMessage message = canal(
      R"({"data":[{"agent":"a1","filter":null},{"agent":"a2","filter":"udp \u00e9 ü"}],)"
      R"("database":"millrace","es":1700000000000,"id":3,"isDdl":false,"mysqlType":{"agent":"varchar"},)"
      R"("old":null,"pkNames":["agent"],"sql":"","sqlType":{"agent":12},"table":"agent_config","ts":1,"type":"INSERT"})");
  ASSERT_THAT(message.changes, SizeIs(2));
  const Change& first = message.changes[0];
  EXPECT_EQ(first.kind, Change::Kind::inserted);
  EXPECT_EQ(first.database, "millrace");
  EXPECT_EQ(first.table, "agent_config");
  EXPECT_THAT(first.before, IsEmpty());
  EXPECT_THAT(first.after, ElementsAre(value("agent", "a1"), null("filter")));
  EXPECT_THAT(message.changes[1].after,
              ElementsAre(value("agent", "a2"), value("filter", "udp é ü")));
  EXPECT_THAT(message.skipped, IsEmpty());
}

TEST(CanalMessageTest, BeforeIsTheRowWithItsChangedColumnsAsTheyWere) {
  const ChangeMessage message =
      canal(R"({"data":[{"id":"1","a":"x","b":null},{"id":"2","a":"y","b":"n"}],"database":"d",)"
            R"("isDdl":false,"old":[{"b":"was"},{"a":null,"b":"m"}],"table":"t","type":"UPDATE"})");
  ASSERT_THAT(message.changes, SizeIs(2));
  EXPECT_EQ(message.changes[0].kind, Change::Kind::updated);
  EXPECT_THAT(message.changes[0].before,
              ElementsAre(value("id", "1"), value("a", "x"), value("b", "was")));
  EXPECT_THAT(message.changes[0].after, ElementsAre(value("id", "1"), value("a", "x"), null("b")));
  EXPECT_THAT(message.changes[1].before, ElementsAre(value("id", "2"), null("a"), value("b", "m")));
  EXPECT_EQ(message.before_unknown, 0U);
}

TEST(CanalMessageTest, OldRowsThatCannotBeToldApartLeaveBeforeEmpty) {
  const ChangeMessage message =
      canal(R"({"data":[{"id":"1"},{"id":"2"}],"database":"d","old":[{"id":"0"}],"table":"t",)"
            R"("type":"UPDATE"})");
  ASSERT_THAT(message.changes, SizeIs(2));
  EXPECT_THAT(message.changes[0].before, IsEmpty());
  EXPECT_THAT(message.changes[1].after, ElementsAre(value("id", "2")));
  EXPECT_EQ(message.before_unknown, 2U);
}

TEST(CanalMessageTest, AnUpdateWithoutOldChangedNothing) {
  const ChangeMessage message =
      canal(R"({"data":[{"id":"1"}],"database":"d","old":null,"table":"t","type":"UPDATE"})");
  ASSERT_THAT(message.changes, SizeIs(1));
  EXPECT_EQ(message.changes[0].before, message.changes[0].after);
}

TEST(CanalMessageTest, ADeletedRowIsBefore) {
  const ChangeMessage message =
      canal(R"({"data":[{"id":"1"}],"database":"d","old":null,"table":"t","type":"DELETE"})");
  ASSERT_THAT(message.changes, SizeIs(1));
  EXPECT_EQ(message.changes[0].kind, Change::Kind::deleted);
  EXPECT_THAT(message.changes[0].before, ElementsAre(value("id", "1")));
  EXPECT_THAT(message.changes[0].after, IsEmpty());
}

TEST(CanalMessageTest, NumbersKeepTheirDigits) {
  const ChangeMessage message =
      canal(R"({"data":[{"a":1.10,"b":123456789012345678901234567890,"c":-7,"d":1e3,"e":true,)"
            R"("f":18446744073709551615}],"database":"d","table":"t","type":"INSERT"})");
  ASSERT_THAT(message.changes, SizeIs(1));
  EXPECT_THAT(message.changes[0].after,
              ElementsAre(value("a", "1.10"), value("b", "123456789012345678901234567890"),
                          value("c", "-7"), value("d", "1e3"), value("e", "true"),
                          value("f", "18446744073709551615")));
}

TEST(CanalMessageTest, WhatIsNoRowIsSkippedByReason) {
  EXPECT_EQ(canal(R"({"data":null,"database":"d","isDdl":true,"sql":"ALTER TABLE t ...",)"
                  R"("table":"t","type":"ALTER"})")
                .skipped,
            "ddl");
  EXPECT_EQ(
      canal(R"({"data":null,"database":"d","isDdl":false,"table":"","type":"QUERY"})").skipped,
      "other-type");
  EXPECT_EQ(canal("").skipped, "tombstone");
}

TEST(CanalMessageTest, SaysWhyAMessageIsNone) {
  const auto error = [](std::string_view text) { return error_of(MessageFormat::canal, text); };
  EXPECT_THAT(error("{"), HasSubstr("no JSON: at byte 2"));
  EXPECT_THAT(error("{\"a\":\"\xff\"}"), HasSubstr("UTF-8"));
  EXPECT_EQ(error("[1]"), "no JSON object");
  EXPECT_EQ(error("null"), "no JSON object");
  EXPECT_EQ(error("{}"), "the text 'type' is missing");
  EXPECT_EQ(error(R"({"type":"INSERT","table":"t","data":[]})"), "the text 'database' is missing");
  EXPECT_EQ(error(R"({"type":"INSERT","database":"d","data":[]})"), "the text 'table' is missing");
  EXPECT_EQ(error(R"({"type":"INSERT","database":"d","table":"t"})"), "'data' is no list of rows");
  EXPECT_EQ(error(R"({"type":"INSERT","database":"d","table":"t","data":[1]})"),
            "'data' is no object of columns");
  EXPECT_EQ(error(R"({"type":"UPDATE","database":"d","table":"t","data":[],"old":{}})"),
            "'old' is no list of rows");
  EXPECT_EQ(error(R"({"type":"UPDATE","database":"d","table":"t","data":[],"old":[{}]})"),
            "'old' has more rows than 'data'");
  EXPECT_THAT(error(std::string(100000, '[')), HasSubstr("nested deeper than 64"));
}

TEST(ChangeMessageTest, MessagesOfAnotherFormatAreUnreadable) {
  const std::string of_canal =
      R"({"data":[{"agent":"a"}],"database":"d","isDdl":false,"old":null,"table":"t","type":"INSERT"})";
  const std::string of_maxwell =
      R"({"database":"d","table":"t","type":"insert","ts":1,"data":{"agent":"a"}})";
  const std::string of_debezium =
      R"({"before":null,"after":{"agent":"a"},"source":{"db":"d","table":"t"},"op":"c"})";
  EXPECT_EQ(error_of(MessageFormat::canal, of_maxwell),
            R"(Canal writes no 'type' 'insert'; Maxwell does (format = "maxwell"))");
  EXPECT_EQ(error_of(MessageFormat::maxwell, of_canal),
            R"(Maxwell writes no 'type' 'INSERT'; Canal does (format = "canal"))");
  EXPECT_EQ(error_of(MessageFormat::canal, of_debezium), "the text 'type' is missing");
  EXPECT_EQ(error_of(MessageFormat::maxwell, of_debezium), "the text 'type' is missing");
  EXPECT_EQ(error_of(MessageFormat::debezium, of_canal), "the text 'op' is missing");
  EXPECT_EQ(error_of(MessageFormat::debezium, of_maxwell), "the text 'op' is missing");
  // Of others than rows, too.
  EXPECT_NE(error_of(MessageFormat::canal, R"({"type":"table-drop","database":"d"})"), "no error");
  EXPECT_NE(error_of(MessageFormat::maxwell,
                     R"({"data":null,"database":"d","isDdl":true,"type":"ALTER"})"),
            "no error");
}

TEST(ChangeMessageTest, TablesWhoseRowsWentWithoutAChangeAreNamed) {
  for (const char* is_ddl : {"true", "false", "null"}) {
    const ChangeMessage message =
        canal(std::string(R"({"data":null,"database":"d","isDdl":)") + is_ddl +
              R"(,"old":null,"sql":"TRUNCATE TABLE t","table":"t","type":"TRUNCATE"})");
    EXPECT_EQ(message.emptied, "d.t");
    EXPECT_EQ(message.skipped, "truncate");
  }
  EXPECT_EQ(
      canal(R"({"data":null,"database":"d","isDdl":true,"table":"t","type":"ERASE"})").emptied,
      "d.t");
  EXPECT_EQ(debezium(R"({"source":{"db":"d","table":"t"},"op":"t","before":null})").emptied, "d.t");
  EXPECT_EQ(debezium(R"({"databaseName":"d","ddl":"TRUNCATE TABLE t",)"
                     R"("tableChanges":[{"type":"ALTER","id":"\"d\".\"t\""}]})")
                .emptied,
            "d.t");
  EXPECT_EQ(debezium(R"({"databaseName":"d","ddl":"drop table t","tableChanges":[]})").emptied,
            "d.*");
  EXPECT_EQ(maxwell(R"({"database":"d","table":"t","type":"table-drop"})").emptied, "d.t");
  EXPECT_EQ(maxwell(R"({"database":"d","type":"database-drop"})").emptied, "d.*");
  EXPECT_EQ(canal(R"({"database":"d","isDdl":true,"table":"t","type":"ALTER"})").emptied, "");
}

/// What Canal has written of a session with MariaDB 10.11.
TEST(CanalMessageTest, ReadsWhatCanalHasWritten) {
  std::ifstream file(RECORDED_CANAL);
  std::vector<Change> changes;
  std::map<std::string_view, int> skipped;
  for (std::string line; std::getline(file, line);) {
    ChangeMessage message = canal(line);
    if (!message.skipped.empty()) ++skipped[message.skipped];
    EXPECT_EQ(message.before_unknown, 0U);
    std::move(message.changes.begin(), message.changes.end(), std::back_inserter(changes));
  }
  EXPECT_THAT(skipped, ElementsAre(Pair("ddl", 5), Pair("other-type", 6), Pair("truncate", 1)));
  using Kind = Change::Kind;
  std::vector<Kind> kinds;
  for (const Change& change : changes) kinds.push_back(change.kind);
  EXPECT_THAT(kinds, ElementsAre(Kind::inserted, Kind::inserted, Kind::updated, Kind::updated,
                                 Kind::updated, Kind::updated, Kind::deleted, Kind::deleted,
                                 Kind::inserted));
  const auto all_after = ElementsAre(
      value("agent", "a1"), value("filter", "tcp"), value("snaplen", "65535"),
      value("rate", "1.10"), value("big", "18446744073709551615"), value("ratio", "0.1"),
      value("enabled", "1"), value("since", "2026-01-02 03:04:05.678"),
      value("note", "größe 😀 \"q\""), value("raw", std::string("\0ÿ\x7f", 4)));
  ASSERT_EQ(changes.size(), 9U);
  EXPECT_THAT(changes[0].after, all_after);
  EXPECT_THAT(changes[2].before, all_after);
  EXPECT_THAT(changes[2].after, ::testing::Contains(value("filter", "udp")));
  EXPECT_THAT(changes[4].after, ::testing::Contains(null("snaplen")));
  EXPECT_THAT(changes[4].before, ::testing::Contains(value("snaplen", "65535")));
  EXPECT_THAT(changes[5].before, ::testing::Contains(value("agent", "a2")));
  EXPECT_THAT(changes[5].after, ::testing::Contains(value("agent", "a3")));
  EXPECT_THAT(changes[5].before, ::testing::Contains(value("extra", "7")));
  EXPECT_THAT(changes[8].after, ElementsAre(null("i")));
}

TEST(DebeziumMessageTest, ReadsEnvelopesWithAndWithoutTheirSchema) {
  const std::string plain =
      R"({"before":{"id":1,"v":1.50},"after":{"id":1,"v":null},"source":{"version":"2.5","db":"shop",)"
      R"("table":"orders"},"op":"u","ts_ms":1,"transaction":null})";
  const std::string wrapped =
      R"({"schema":{"type":"struct","fields":[{"field":"op"}]},"payload":)" + plain + "}";
  for (const std::string& text : {plain, wrapped}) {
    const ChangeMessage message = debezium(text);
    ASSERT_THAT(message.changes, SizeIs(1));
    const Change& change = message.changes[0];
    EXPECT_EQ(change.kind, Change::Kind::updated);
    EXPECT_EQ(change.database, "shop");
    EXPECT_EQ(change.table, "orders");
    EXPECT_THAT(change.before, ElementsAre(value("id", "1"), value("v", "1.50")));
    EXPECT_THAT(change.after, ElementsAre(value("id", "1"), null("v")));
  }
}

TEST(DebeziumMessageTest, KnowsItsOperations) {
  const auto with_op = [](const std::string& op) {
    return debezium(
        R"({"before":{"id":1},"after":{"id":2},"source":{"db":"d","table":"t"},"op":")" + op +
        "\"}");
  };
  for (const std::string op : {"c", "r"}) {
    const ChangeMessage message = with_op(op);
    ASSERT_THAT(message.changes, SizeIs(1));
    EXPECT_EQ(message.changes[0].kind, Change::Kind::inserted);
    EXPECT_THAT(message.changes[0].before, IsEmpty());
    EXPECT_THAT(message.changes[0].after, ElementsAre(value("id", "2")));
  }
  const ChangeMessage deleted = with_op("d");
  ASSERT_THAT(deleted.changes, SizeIs(1));
  EXPECT_EQ(deleted.changes[0].kind, Change::Kind::deleted);
  EXPECT_THAT(deleted.changes[0].before, ElementsAre(value("id", "1")));
  EXPECT_THAT(deleted.changes[0].after, IsEmpty());
  EXPECT_EQ(with_op("t").skipped, "truncate");
  EXPECT_EQ(with_op("m").skipped, "other-type");
  EXPECT_THROW(with_op("x"), std::runtime_error);
}

TEST(DebeziumMessageTest, AnUpdateMayLackBefore) {
  const ChangeMessage message =
      debezium(R"({"before":null,"after":{"id":2},"source":{"db":"d","table":"t"},"op":"u"})");
  ASSERT_THAT(message.changes, SizeIs(1));
  EXPECT_THAT(message.changes[0].before, IsEmpty());
  EXPECT_EQ(message.before_unknown, 1U);
}

TEST(DebeziumMessageTest, NestedValuesAreJson) {
  const ChangeMessage message = debezium(
      R"({"after":{"p":{"x":1.0,"wkb":"AQ=="},"s":["a","\""]},"source":{"db":"d","table":"t"},"op":"c"})");
  ASSERT_THAT(message.changes, SizeIs(1));
  EXPECT_THAT(message.changes[0].after,
              ElementsAre(value("p", R"({"x":1.0,"wkb":"AQ=="})"), value("s", R"(["a","\""])")));
}

TEST(DebeziumMessageTest, WhatIsNoRowIsSkippedByReason) {
  EXPECT_EQ(debezium("").skipped, "tombstone");
  EXPECT_EQ(debezium("null").skipped, "tombstone");
  EXPECT_EQ(debezium(R"({"schema":null,"payload":null})").skipped, "tombstone");
  EXPECT_EQ(debezium(R"({"source":{"db":"d"},"databaseName":"d","ddl":"CREATE TABLE t LIKE u",)"
                     R"("tableChanges":[]})")
                .skipped,
            "ddl");
  EXPECT_EQ(debezium(R"({"ts_ms":1700000000000})").skipped, "other-type");
  EXPECT_EQ(debezium(R"({"status":"BEGIN","id":"7","event_count":null})").skipped, "other-type");
}

TEST(DebeziumMessageTest, SaysWhyAMessageIsNone) {
  const auto error = [](std::string_view text) { return error_of(MessageFormat::debezium, text); };
  EXPECT_EQ(error(R"({"id":1,"name":"flattened"})"), "the text 'op' is missing");
  EXPECT_EQ(error(R"({"op":"c","after":{}})"), "the text 'db' is missing");
  EXPECT_EQ(error(R"({"op":"c","after":null,"source":{"db":"d","table":"t"}})"),
            "'after' is no object of columns");
  EXPECT_EQ(error(R"({"op":"d","before":null,"source":{"db":"d","table":"t"}})"),
            "'before' of a deleted row is missing");
  EXPECT_EQ(error(R"({"op":1})"), "the text 'op' is missing");
}

TEST(MaxwellMessageTest, ReadsRows) {
  const ChangeMessage inserted =
      maxwell(R"({"database":"test","table":"e","type":"insert","ts":1,"xid":2,"commit":true,)"
              R"("data":{"id":1,"m":4.20,"c":null}})");
  ASSERT_THAT(inserted.changes, SizeIs(1));
  EXPECT_EQ(inserted.changes[0].kind, Change::Kind::inserted);
  EXPECT_EQ(inserted.changes[0].database, "test");
  EXPECT_EQ(inserted.changes[0].table, "e");
  EXPECT_THAT(inserted.changes[0].after,
              ElementsAre(value("id", "1"), value("m", "4.20"), null("c")));

  const ChangeMessage updated = maxwell(
      R"({"database":"test","table":"e","type":"update","data":{"id":1,"m":5},"old":{"m":4.20}})");
  ASSERT_THAT(updated.changes, SizeIs(1));
  EXPECT_EQ(updated.changes[0].kind, Change::Kind::updated);
  EXPECT_THAT(updated.changes[0].before, ElementsAre(value("id", "1"), value("m", "4.20")));
  EXPECT_THAT(updated.changes[0].after, ElementsAre(value("id", "1"), value("m", "5")));

  const ChangeMessage deleted =
      maxwell(R"({"database":"test","table":"e","type":"delete","data":{"id":1}})");
  ASSERT_THAT(deleted.changes, SizeIs(1));
  EXPECT_EQ(deleted.changes[0].kind, Change::Kind::deleted);
  EXPECT_THAT(deleted.changes[0].before, ElementsAre(value("id", "1")));

  const ChangeMessage bootstrapped =
      maxwell(R"({"database":"test","table":"e","type":"bootstrap-insert","data":{"id":1}})");
  ASSERT_THAT(bootstrapped.changes, SizeIs(1));
  EXPECT_EQ(bootstrapped.changes[0].kind, Change::Kind::inserted);
}

TEST(MaxwellMessageTest, WhatIsNoRowIsSkippedByReason) {
  EXPECT_EQ(maxwell("").skipped, "tombstone");
  EXPECT_EQ(maxwell(R"({"database":"d","table":"t","type":"table-alter","sql":"ALTER"})").skipped,
            "ddl");
  EXPECT_EQ(maxwell(R"({"database":"d","type":"database-create"})").skipped, "ddl");
  EXPECT_EQ(maxwell(R"({"database":"d","table":"t","type":"bootstrap-start","data":{}})").skipped,
            "other-type");
  EXPECT_EQ(error_of(MessageFormat::maxwell, R"({"type":"insert","database":"d","table":"t"})"),
            "'data' is no object of columns");
}

}  // namespace

}  // namespace millrace
