#include "sink_postgres.h"

#include <limits>
#include <thread>

#include "postgres_fixture.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

Timestamp at(std::int64_t nanoseconds) { return Timestamp(std::chrono::nanoseconds(nanoseconds)); }

TEST_F(SinkPostgresTest, RowHoldsEveryField) {
  Verdict v = verdict(0xAB, "a 'quoted' \xC3\xA4\xF0\x9F\x98\x80 {\\,\"} label");
  v.session.key.family = 6;
  v.session.key.low = {0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
  v.session.key.high = {0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x27, 0x5c, 0, 2};
  v.session.key.low_port = 80;
  v.session.key.high_port = 65535;
  v.session.src_is_low = false;
  v.session.due = Due::timeout;
  v.session.epoch = std::numeric_limits<std::uint32_t>::max();
  v.session.packets = std::numeric_limits<std::uint32_t>::max();
  v.session.bytes = std::numeric_limits<std::int64_t>::max();
  v.session.payload_bytes = 4'000'000'000;
  v.session.first_seen = at(1462356672123456789);
  v.session.last_seen = at(1462356673123456789);
  v.session.agent = "probe\t1\n";
  context_.manual_clock.set(at(1700000000000000001));
  run({v});
  EXPECT_EQ(query("SELECT session, agent, protocol, src, src_port, dst, dst_port, epoch, "
                  "first_seen, last_seen, packets, bytes, payload_bytes, reason, label, "
                  "label_index, confidence, model, model_version, classified_at FROM sessions"),
            "00ab0000-0000-0000-0000-000000000000;probe\t1\n;17;fe80::ffff:ffff:275c:2;65535;"
            "2001:db8::1;80;4294967295;1462356672123456789;1462356673123456789;4294967295;"
            "9223372036854775807;4000000000;timeout;"
            "a 'quoted' \xC3\xA4\xF0\x9F\x98\x80 {\\,\"} label;3;0.5;m;7;1700000000000000001;");
  EXPECT_EQ(query("SELECT session, protocol, src, src_port, dst, dst_port, "
                  "first_seen AT TIME ZONE 'UTC', last_seen AT TIME ZONE 'UTC', "
                  "classified_at AT TIME ZONE 'UTC' FROM sessions_readable"),
            "00ab0000000000000000000000000000;udp;fe80::ffff:ffff:275c:2;65535;2001:db8::1;80;"
            "2016-05-04 10:11:12.123456;2016-05-04 10:11:13.123456;2023-11-14 22:13:20;");
  EXPECT_EQ(query("SELECT first_seen FROM sessions_readable"), "2016-05-04 15:41:12.123456+05:30;");
}

TEST_F(SinkPostgresTest, RowIsFoundByHexIdAndByNet) {
  Verdict v = verdict(0xAB, "a");
  v.session.key.low = {10, 1, 2, 3};
  v.session.key.high = {192, 168, 0, 255};
  run({v});
  EXPECT_EQ(query("SELECT host(src), host(dst) FROM sessions WHERE src << '10.0.0.0/8' AND "
                  "session = '00ab0000000000000000000000000000'"),
            "10.1.2.3;192.168.0.255;");
}

TEST_F(SinkPostgresTest, RowWithoutLabel) {
  Verdict v = verdict(1, "");
  v.session.key.protocol = 6;
  run({v});
  EXPECT_EQ(query("SELECT label, label_index, confidence, model, classified_at FROM sessions"),
            ";NULL;NULL;;NULL;");
  EXPECT_EQ(query("SELECT protocol, label, confidence, classified_at FROM sessions_readable"),
            "tcp;;NULL;NULL;");
}

TEST_F(SinkPostgresTest, NumberThatIsNoneIsNull) {
  std::vector<Verdict> rows = verdicts(1, 2, "a");
  rows[0].confidence = std::numeric_limits<float>::quiet_NaN();
  rows[1].confidence = std::numeric_limits<float>::infinity();
  run(rows);
  EXPECT_EQ(query("SELECT label, confidence FROM sessions"), "a;NULL;a;NULL;");
  run({verdict(3, "")});
  rows[0].session.id = verdict(3, "").session.id;
  run({rows[0]});
  EXPECT_EQ(query("SELECT label, confidence FROM sessions WHERE packets = 3"), "a;NULL;");
}

TEST_F(SinkPostgresTest, IdsCanBeComputedFromTheRow) {
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
           "SELECT encode(uuid_send(session), 'hex'), agent, protocol, family(src), "
           "encode(substr(inet_send(src), 5), 'hex'), encode(substr(inet_send(dst), 5), 'hex'), "
           "src_port, dst_port, epoch, first_seen FROM sessions")) {
    const auto number = [&row](std::size_t column) {
      return std::stoull(row[column].value_or(""));
    };
    const auto bytes = [](const std::string& hex) {
      Address address{};
      for (std::size_t i = 0; i < hex.size() / 2; ++i) {
        address.at(i) = static_cast<std::uint8_t>(std::stoul(hex.substr(2 * i, 2), nullptr, 16));
      }
      return address;
    };
    FiveTuple key;
    key.protocol = static_cast<std::uint8_t>(number(2));
    key.family = static_cast<std::uint8_t>(number(3));
    key.low = bytes(*row[4]);
    key.high = bytes(*row[5]);
    key.low_port = static_cast<std::uint16_t>(number(6));
    key.high_port = static_cast<std::uint16_t>(number(7));
    const auto epoch = static_cast<std::uint32_t>(number(8));
    const auto first_seen = at(static_cast<std::int64_t>(number(9)));
    EXPECT_EQ(to_hex(session_id(key, first_seen, epoch, *row[1])), *row[0]);
    ++found;
  }
  EXPECT_EQ(found, rows.size());
}

TEST_F(SinkPostgresTest, StoringTwiceAddsNothing) {
  run(verdicts(1, 700, "a"));
  EXPECT_EQ(count("stored"), 700U);
  run(verdicts(1, 701, "b"));
  EXPECT_EQ(
      query("SELECT label, count(*), sum(packets) FROM sessions GROUP BY label ORDER BY label"),
      "a;700;245350;b;1;701;");
  EXPECT_EQ(count("stored"), 701U);
  EXPECT_EQ(count("already-stored"), 700U);
  EXPECT_EQ(count("labelled"), 0U);
}

TEST_F(SinkPostgresTest, SessionTwiceInOneTransactionIsOneRow) {
  run({verdict(1, "a"), verdict(2, ""), verdict(1, "b"), verdict(2, "c"), verdict(2, "d")});
  EXPECT_EQ(query("SELECT label FROM sessions ORDER BY session"), "a;c;");
  EXPECT_EQ(count("stored"), 2U);
  EXPECT_EQ(count("labelled"), 1U);
  EXPECT_EQ(count("already-stored"), 2U);
}

TEST_F(SinkPostgresTest, LaterLabelFillsAnEmptyOneAndReplacesNone) {
  run(verdicts(1, 600, ""));
  std::vector<Verdict> later = verdicts(1, 600, "a");
  later[0].session.packets = 99;
  run(later);
  EXPECT_EQ(count("labelled"), 600U);
  EXPECT_EQ(query("SELECT count(*) FROM sessions WHERE label = 'a' AND label_index = 3 AND "
                  "confidence = 0.5 AND model = 'm' AND model_version = '7' AND classified_at > 0"),
            "600;");
  EXPECT_EQ(query("SELECT min(packets) FROM sessions"), "1;");
  run(verdicts(1, 600, "b"));
  run(verdicts(1, 600, ""));
  EXPECT_EQ(query("SELECT label, count(*) FROM sessions GROUP BY label"), "a;600;");
  EXPECT_EQ(count("stored"), 600U);
  EXPECT_EQ(count("labelled"), 600U);
  EXPECT_EQ(count("already-stored"), 1200U);
}

TEST_F(SinkPostgresTest, MoreRowsThanOneStatementTakesAreOneTransaction) {
  run(verdicts(1, 10000, ""));
  run(verdicts(1, 10001, "a"));
  EXPECT_EQ(query("SELECT label, count(*), count(DISTINCT session) FROM sessions GROUP BY label"),
            "a;10001;10001;");
  EXPECT_EQ(count("stored"), 10001U);
  EXPECT_EQ(count("labelled"), 10000U);
  EXPECT_EQ(query("SELECT count(DISTINCT xmin::text) FROM sessions"), "1;");
}

/// The rows' labels, models' versions and how many, and the warnings.
#define EXPECT_ROWS(rows) \
  EXPECT_EQ(query("SELECT label, model_version, count(*) FROM sessions GROUP BY 1, 2"), rows)

TEST_F(SinkPostgresTest, LabelOfAnotherModelReplacesTheOldOne) {
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

TEST_F(SinkPostgresTest, LabelOfAnotherModelCanBeLeftOut) {
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

TEST_F(SinkPostgresTest, OtherLabelOfAModelThatCallsItselfTheSame) {
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

TEST_F(SinkPostgresTest, BatchesAreJoinedByTheHost) {
  options_.batch = 7;
  options_.max_wait = std::chrono::minutes(3);
  const SinkPostgres sink(options_);
  EXPECT_EQ(sink.coalesce().items, 7U);
  EXPECT_EQ(sink.coalesce().max_wait, std::chrono::minutes(3));
}

TEST_F(SinkPostgresTest, NoTransactionIsOpenBetweenCalls) {
  SinkPostgres sink(options_);
  sink.open(context_);
  const std::string open =
      "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'millrace stage' AND state "
      "<> "
      "'idle' AND datname = current_database()";
  EXPECT_EQ(query(open), "0;");
  Batch<Verdict> batch = batch_of({verdict(1, "a")});
  give(sink, batch);
  EXPECT_EQ(query(open), "0;");
  EXPECT_EQ(query("SELECT count(*) FROM sessions"), "1;");
  Batch<Verdict> tick;
  sink.write(tick);
  EXPECT_EQ(
      query("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'millrace stage'"),
      "1;");
}

TEST_F(SinkPostgresTest, SessionsWithoutVerdictAreTaken) {
  Batch<Session> sessions;
  sessions.items.resize(1);
  sessions.items[0].info.id[0] = 7;
  Batch<Verdict> batch = unlabelled(sessions);
  SinkPostgres sink(options_);
  sink.open(context_);
  give(sink, batch);
  EXPECT_EQ(query("SELECT session, label FROM sessions_readable"),
            "07000000000000000000000000000000;;");
}

TEST_F(SinkPostgresTest, SeveralAtOnceStoreEachSessionOnce) {
  constexpr int kSinks = 4;
  constexpr std::uint16_t kRows = 3000;
  std::vector<std::jthread> threads;
  std::atomic<int> retried = 0;
  for (int number = 0; number < kSinks; ++number) {
    threads.emplace_back([this, number, &retried] {
      SinkPostgres sink(options_);
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
  EXPECT_EQ(query("SELECT label, count(*) FROM sessions GROUP BY label"), "a;3000;");
  EXPECT_EQ(count("stored"), kRows);
  EXPECT_EQ(count("stored") + count("labelled") + count("already-stored"), kSinks * kRows);
  RecordProperty("retried", retried);
}

TEST_F(SinkPostgresTest, IndexesServeTheQueriesTheyAreFor) {
  std::vector<Verdict> rows = verdicts(1, 20000, "a");
  for (std::size_t i = 0; i < rows.size(); ++i) {
    rows[i].session.first_seen = at(1000000000 * static_cast<std::int64_t>(i));
    if (i % 100 == 0) rows[i].label = "b";
  }
  run(rows);
  execute("ANALYZE sessions");
  EXPECT_THAT(query("EXPLAIN SELECT * FROM sessions WHERE first_seen >= (extract(epoch FROM "
                    "timestamptz '1970-01-01 05:30Z') * 1000000000)::bigint"),
              HasSubstr("sessions_first_seen_idx"));
  EXPECT_THAT(query("EXPLAIN SELECT * FROM sessions WHERE label = 'b' AND first_seen < 9000000000"),
              HasSubstr("sessions_label_first_seen_idx"));
}

}  // namespace
}  // namespace millrace
