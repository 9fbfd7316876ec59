#include "sink_mysql.h"

#include <limits>
#include <set>
#include <thread>

#include "mysql_fixture.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

Timestamp at(std::int64_t nanoseconds) { return Timestamp(std::chrono::nanoseconds(nanoseconds)); }

TEST_F(SinkMysqlTest, RowHoldsEveryField) {
  Verdict v = verdict(0xAB, "a 'quoted' \xC3\xA4\xF0\x9F\x98\x80 label");
  v.session.key.family = 6;
  v.session.key.low = {0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
  v.session.key.high = {0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x27, 0x5c, 0, 2};
  v.session.key.low_port = 80;
  v.session.key.high_port = 65535;
  v.session.src_is_low = false;
  v.session.due = Due::timeout;
  v.session.epoch = std::numeric_limits<std::uint32_t>::max();
  v.session.packets = std::numeric_limits<std::uint32_t>::max();
  v.session.bytes = std::numeric_limits<std::uint64_t>::max();
  v.session.payload_bytes = 4'000'000'000;
  v.session.first_seen = at(1462356672123456789);
  v.session.last_seen = at(1462356673123456789);
  v.session.agent = "probe 1";
  context_.manual_clock.set(at(1700000000000000001));
  run({v});
  EXPECT_EQ(query("SELECT LOWER(HEX(session)), agent, protocol, LENGTH(src), src_port, dst_port, "
                  "epoch, first_seen, last_seen, packets, bytes, payload_bytes, reason, label, "
                  "label_index, confidence, model, model_version, classified_at FROM sessions"),
            "00ab0000000000000000000000000000;probe 1;17;16;65535;80;4294967295;"
            "1462356672123456789;1462356673123456789;4294967295;18446744073709551615;4000000000;"
            "timeout;a 'quoted' \xC3\xA4\xF0\x9F\x98\x80 label;3;0.5;m;7;1700000000000000001;");
  EXPECT_EQ(query("SELECT session, protocol, src, src_port, dst, dst_port, first_seen, last_seen, "
                  "classified_at FROM sessions_readable"),
            "00ab0000000000000000000000000000;udp;fe80::ffff:ffff:275c:2;65535;2001:db8::1;80;"
            "2016-05-04 10:11:12.123456;2016-05-04 10:11:13.123456;2023-11-14 22:13:20.000000;");
}

TEST_F(SinkMysqlTest, RowWithoutLabel) {
  Verdict v = verdict(1, "");
  v.session.key.protocol = 6;
  v.session.key.low = {10, 0x27, 0x5c, 0};  // a quote, a backslash and a zero
  v.session.key.high = {192, 168, 0, 255};
  run({v});
  EXPECT_EQ(query("SELECT label, label_index, confidence, model, classified_at FROM sessions"),
            ";NULL;NULL;;NULL;");
  EXPECT_EQ(query("SELECT protocol, src, dst, label, classified_at FROM sessions_readable"),
            "tcp;10.39.92.0;192.168.0.255;;NULL;");
}

TEST_F(SinkMysqlTest, NumberThatIsNoneIsNull) {
  Verdict v = verdict(1, "a");
  v.confidence = std::numeric_limits<float>::quiet_NaN();
  run({v});
  EXPECT_EQ(query("SELECT label, confidence FROM sessions"), "a;NULL;");
}

TEST_F(SinkMysqlTest, IdsCanBeComputedFromTheRow) {
  std::vector<Verdict> rows;
  for (std::uint8_t i = 0; i < 4; ++i) {
    Verdict v = verdict(0, "a");
    FiveTuple& key = v.session.key;
    key.family = i % 2 == 0 ? 4 : 6;
    key.low = {i, 1};
    key.high = {200, 5};
    key.low_port = 1;
    key.high_port = 2;
    v.session.src_is_low = true;
    v.session.epoch = i;
    v.session.first_seen = at(1462356672123456789 + i);
    v.session.agent = i == 3 ? "x" : "";
    v.session.id = session_id(key, v.session.first_seen, v.session.epoch, v.session.agent);
    rows.push_back(v);
  }
  run(rows);
  Connection connection;
  connection.open(root_options());
  std::size_t found = 0;
  for (const auto& row : connection.query(
           "SELECT LOWER(HEX(session)), agent, protocol, HEX(src), HEX(dst), src_port, dst_port, "
           "epoch, first_seen FROM sessions")) {
    const auto bytes = [](const std::string& hex) {
      Address address{};
      for (std::size_t i = 0; i < hex.size() / 2; ++i) {
        address.at(i) = static_cast<std::uint8_t>(std::stoul(hex.substr(2 * i, 2), nullptr, 16));
      }
      return address;
    };
    FiveTuple key;
    key.family = row[3]->size() == 8 ? 4 : 6;
    key.protocol = static_cast<std::uint8_t>(std::stoul(*row[2]));
    key.low = bytes(*row[3]);
    key.high = bytes(*row[4]);
    key.low_port = static_cast<std::uint16_t>(std::stoul(*row[5]));
    key.high_port = static_cast<std::uint16_t>(std::stoul(*row[6]));
    const auto epoch = static_cast<std::uint32_t>(std::stoul(*row[7]));
    EXPECT_EQ(to_hex(session_id(key, at(std::stoll(*row[8])), epoch, *row[1])), *row[0]);
    ++found;
  }
  EXPECT_EQ(found, rows.size());
}

TEST_F(SinkMysqlTest, StoringTwiceAddsNothing) {
  run(verdicts(1, 700, "a"));
  EXPECT_EQ(count("stored"), 700U);
  run(verdicts(1, 701, "b"));
  EXPECT_EQ(query("SELECT label, COUNT(*), SUM(packets) FROM sessions GROUP BY label"),
            "a;700;245350;b;1;701;");
  EXPECT_EQ(count("stored"), 701U);
  EXPECT_EQ(count("already-stored"), 700U);
  EXPECT_EQ(count("labelled"), 0U);
}

TEST_F(SinkMysqlTest, SessionTwiceInOneTransactionIsOneRow) {
  run({verdict(1, "a"), verdict(2, ""), verdict(1, "b"), verdict(2, "c"), verdict(2, "d")});
  EXPECT_EQ(query("SELECT label FROM sessions ORDER BY session"), "a;c;");
  EXPECT_EQ(count("stored"), 2U);
  EXPECT_EQ(count("labelled"), 1U);
  EXPECT_EQ(count("already-stored"), 2U);
}

TEST_F(SinkMysqlTest, LaterLabelFillsAnEmptyOneAndReplacesNone) {
  run(verdicts(1, 600, ""));
  std::vector<Verdict> later = verdicts(1, 600, "a");
  later[0].session.packets = 99;
  run(later);
  EXPECT_EQ(count("labelled"), 600U);
  EXPECT_EQ(query("SELECT COUNT(*) FROM sessions WHERE label = 'a' AND label_index = 3 AND "
                  "confidence = 0.5 AND model = 'm' AND model_version = '7' AND classified_at > 0"),
            "600;");
  EXPECT_EQ(query("SELECT MIN(packets) FROM sessions"), "1;");
  run(verdicts(1, 600, "b"));
  run(verdicts(1, 600, ""));
  EXPECT_EQ(query("SELECT label, COUNT(*) FROM sessions GROUP BY label"), "a;600;");
  EXPECT_EQ(count("stored"), 600U);
  EXPECT_EQ(count("labelled"), 600U);
  EXPECT_EQ(count("already-stored"), 1200U);
}

/// The rows' labels, models' versions and how many, and the warnings.
#define EXPECT_ROWS(rows) \
  EXPECT_EQ(query("SELECT label, model_version, COUNT(*) FROM sessions GROUP BY 1, 2"), rows)

TEST_F(SinkMysqlTest, LabelOfAnotherModelReplacesTheOldOne) {
  run(verdicts(1, 600, "a"));
  std::vector<Verdict> anew = verdicts(1, 601, "b");
  for (Verdict& v : anew) v.model_version = "8";
  run(anew);
  EXPECT_ROWS("b;8;601;");
  EXPECT_EQ(count("relabelled"), 600U);
  EXPECT_THAT(warnings(), AllOf(HasSubstr("600 sessions had a label of the model 'm' version '7': "
                                          "now that of the model 'm' version '8'"),
                                HasSubstr("on_existing = \"keep\"")));
  // Delivered again: nothing changes, and nothing is said.
  const std::string said = warnings();
  run(anew);
  run(verdicts(1, 601, ""));
  EXPECT_ROWS("b;8;601;");
  EXPECT_EQ(count("stored"), 601U);
  EXPECT_EQ(count("relabelled"), 600U);
  EXPECT_EQ(count("already-stored"), 1202U);
  EXPECT_EQ(count("other-label"), 0U);
  EXPECT_EQ(warnings(), said);
}

TEST_F(SinkMysqlTest, LabelOfAnotherModelCanBeLeftOut) {
  options_.on_existing = OnExisting::keep;
  run(verdicts(1, 20, "a"));
  std::vector<Verdict> anew = verdicts(1, 20, "b");
  for (Verdict& v : anew) v.model = "n";
  run(anew);
  EXPECT_ROWS("a;7;20;");
  EXPECT_EQ(count("other-label"), 20U);
  EXPECT_EQ(count("already-stored"), 20U);
  EXPECT_THAT(warnings(),
              AllOf(HasSubstr("20 sessions already had a label of the model 'm' version "
                              "'7', which stays; that of the model 'n' version '7'"),
                    HasSubstr("on_existing = \"replace\"")));
}

TEST_F(SinkMysqlTest, OtherLabelOfAModelThatCallsItselfTheSame) {
  run(verdicts(1, 20, "a"));
  run(verdicts(1, 20, "b"));
  EXPECT_ROWS("a;7;20;");
  EXPECT_THAT(warnings(), AllOf(HasSubstr("20 sessions already had another label of the model 'm' "
                                          "version '7', which stays"),
                                HasSubstr("another version in its card")));
  options_.on_existing = OnExisting::replace;
  run(verdicts(1, 20, "b"));
  EXPECT_ROWS("b;7;20;");
  EXPECT_EQ(count("relabelled"), 20U);
}

TEST_F(SinkMysqlTest, BatchesAreJoinedByTheHost) {
  options_.batch = 7;
  options_.max_wait = std::chrono::minutes(3);
  const SinkMysql sink(options_);
  EXPECT_EQ(sink.coalesce().items, 7U);
  EXPECT_EQ(sink.coalesce().max_wait, std::chrono::minutes(3));
}

TEST_F(SinkMysqlTest, EveryCallIsATransactionAndNoneIsOpenBetween) {
  const std::string open = "SELECT COUNT(*) FROM information_schema.innodb_trx";
  SinkMysql sink(options_);
  sink.open(context_);
  EXPECT_EQ(query(open), "0;");
  Batch<Verdict> batch = batch_of({verdict(1, "a"), verdict(2, "a")});
  give(sink, batch);
  EXPECT_EQ(query(open), "0;");
  EXPECT_EQ(query("SELECT COUNT(*) FROM sessions"), "2;");
  Batch<Verdict> tick;
  sink.write(tick);
  EXPECT_EQ(query(open), "0;");
}

TEST_F(SinkMysqlTest, SessionsWithoutVerdictAreTaken) {
  Batch<Session> sessions;
  sessions.items.resize(1);
  sessions.items[0].info.id[0] = 7;
  Batch<Verdict> batch = unlabelled(sessions);
  SinkMysql sink(options_);
  sink.open(context_);
  give(sink, batch);
  EXPECT_EQ(query("SELECT HEX(session), label FROM sessions"),
            "07000000000000000000000000000000;;");
}

TEST_F(SinkMysqlTest, SeveralAtOnceStoreEachSessionOnce) {
  constexpr int kSinks = 4;
  constexpr std::uint16_t kRows = 3000;
  std::vector<std::jthread> threads;
  std::atomic<int> retried = 0;
  for (int number = 0; number < kSinks; ++number) {
    threads.emplace_back([this, number, &retried] {
      SinkMysql sink(options_);
      sink.open(context_);
      for (std::uint16_t first = 0; first < kRows; first += 300) {
        // Half of them know no label yet; the order differs.
        const auto begin = static_cast<std::uint16_t>(number % 2 == 0 ? first : 2700 - first);
        Batch<Verdict> batch(verdicts(begin, 300, number < 2 ? "" : "a"));
        for (bool again = true; again;) {
          try {
            sink.write(batch);
            again = false;
          } catch (const Transient&) {
            ++retried;
          }
        }
      }
    });
  }
  threads.clear();
  EXPECT_EQ(query("SELECT label, COUNT(*) FROM sessions GROUP BY label"), "a;3000;");
  EXPECT_EQ(count("stored"), kRows);
  EXPECT_EQ(count("stored") + count("labelled") + count("already-stored"), kSinks * kRows);
  RecordProperty("retried", retried);
}

TEST_F(SinkMysqlTest, RowsThatDoNotFitAreRejectedAlone) {
  const std::string wide(255, 'x');
  std::string accents;
  for (int i = 0; i < 255; ++i) accents += "\xC3\xA4";
  const std::string too_wide = wide + "x";
  Batch<Verdict> batch =
      batch_of({verdict(1, wide), verdict(2, too_wide), verdict(3, accents), verdict(4, "a"),
                verdict(5, "\xED\xA0\x80"), verdict(6, "a\xFF"), verdict(7, "\xC3")});
  batch.items[0].session.agent = wide;
  batch.items[3].session.agent = too_wide;
  SinkMysql sink(options_);
  sink.open(context_);
  try {
    sink.write(batch);
    FAIL() << "five rows do not fit";
  } catch (const Rejected& error) {
    EXPECT_THAT(error.items(), ::testing::ElementsAre(1, 3, 4, 5, 6));
    EXPECT_THAT(error.what(), HasSubstr("'label' has 256 characters, its column takes 255"));
  }
  EXPECT_EQ(batch.items.size(), 7U);
  Batch<Verdict> agent(std::vector{verdict(4, "a")});
  agent.items[0].session.agent = too_wide;
  try {
    sink.write(agent);
    FAIL() << "the agent's name does not fit";
  } catch (const Rejected& error) {
    EXPECT_THAT(error.what(), HasSubstr("'agent' has 256 characters"));
  }
  Batch<Verdict> rest = batch_of({batch.items[0], batch.items[2]});
  give(sink, rest);
  EXPECT_EQ(query("SELECT CHAR_LENGTH(label), CHAR_LENGTH(agent) FROM sessions ORDER BY session"),
            "255;255;255;0;");
}

TEST_F(SinkMysqlTest, LimitsAreThoseOfTheTable) {
  run({});
  execute("ALTER TABLE sessions MODIFY label VARCHAR(5) CHARACTER SET utf8mb4 NOT NULL");
  SinkMysql sink(options_);
  sink.open(context_);
  Batch<Verdict> batch(std::vector{verdict(1, "12345"), verdict(2, "123456")});
  try {
    sink.write(batch);
    FAIL() << "a label does not fit";
  } catch (const Rejected& error) {
    EXPECT_THAT(error.items(), ::testing::ElementsAre(1));
  }
}

TEST_F(SinkMysqlTest, MessageThatWouldBeTooLongIsCut) {
  const std::string before = query("SELECT @@GLOBAL.max_allowed_packet");
  execute("SET GLOBAL max_allowed_packet = 16384");
  std::string wide;
  for (int i = 0; i < 255; ++i) wide += "\xF0\x9F\x98\x80";
  std::vector<Verdict> rows = verdicts(1, 100, wide);
  for (Verdict& row : rows) row.session.agent = row.model = row.model_version = wide;
  run(rows);
  run(verdicts(500, 1000, "a"));
  run(verdicts(500, 1001, "b"));
  execute("SET GLOBAL max_allowed_packet = " + before.substr(0, before.size() - 1));
  EXPECT_EQ(query("SELECT COUNT(*) FROM sessions"), "1101;");
}

TEST_F(SinkMysqlTest, IndexesServeTheQueriesTheyAreFor) {
  run(verdicts(1, 2000, "a"));
  EXPECT_THAT(query("EXPLAIN SELECT * FROM sessions WHERE first_seen > 5"), HasSubstr("by_time"));
  EXPECT_THAT(query("EXPLAIN SELECT * FROM sessions WHERE label = 'b' AND first_seen > 5"),
              HasSubstr("by_label"));
}

}  // namespace
}  // namespace millrace
