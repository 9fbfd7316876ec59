#include <limits>
#include <random>

#include "postgres_fixture.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

class SinkPostgresRejectedTest : public SinkPostgresTest {
 protected:
  struct Answer {
    std::vector<std::size_t> items;
    std::string what;
  };
  /// What a write rejects; nothing of such a write may be left.
  Answer rejected(SinkPostgres& sink, Batch<Verdict>& batch) const {
    const std::string before = query("SELECT count(*) FROM sessions");
    const std::size_t items = batch.items.size();
    try {
      sink.write(batch);
    } catch (const Rejected& error) {
      EXPECT_EQ(query("SELECT count(*) FROM sessions"), before);
      EXPECT_EQ(batch.items.size(), items);
      return {error.items(), error.what()};
    }
    return {};
  }
};

TEST_F(SinkPostgresRejectedTest, RowsThatDoNotFitAreRejectedAlone) {
  const std::string wide(255, 'x');
  std::string accents;
  for (int i = 0; i < 255; ++i) accents += "\xC3\xA4";
  const std::string too_wide = wide + "x";
  const std::string_view zero("a\0b", 3);
  Batch<Verdict> batch = batch_of({verdict(9, wide), verdict(2, too_wide), verdict(3, accents),
                                   verdict(4, "a"), verdict(5, "\xED\xA0\x80"), verdict(6, "a\xFF"),
                                   verdict(7, "\xC3"), verdict(8, zero)});
  batch.items[0].session.agent = wide;
  batch.items[3].session.agent = too_wide;
  SinkPostgres sink(options_);
  sink.open(context_);
  const Answer answer = rejected(sink, batch);
  EXPECT_THAT(answer.items, ElementsAre(1, 3, 4, 5, 6, 7));
  EXPECT_THAT(answer.what,
              AllOf(StartsWith("session 00020000000000000000000000000000: "),
                    HasSubstr("value too long for type character varying(255) (SQLSTATE 22001)")));
  EXPECT_EQ(receipts_.pending(), 1);
  Batch<Verdict> rest = batch_of({batch.items[0], batch.items[2]});
  give(sink, rest);
  EXPECT_EQ(query("SELECT char_length(label), char_length(agent) FROM sessions ORDER BY session"),
            "255;0;255;255;");
  EXPECT_EQ(count("stored"), 2U);
  EXPECT_EQ(count("reconnected"), 0U);
}

TEST_F(SinkPostgresRejectedTest, NumberThatNoColumnTakes) {
  std::vector<Verdict> rows = verdicts(1, 3, "a");
  rows[1].session.bytes = std::uint64_t{1} << 63U;
  rows[2].session.payload_bytes = std::numeric_limits<std::uint64_t>::max();
  Batch<Verdict> batch = batch_of(rows);
  SinkPostgres sink(options_);
  sink.open(context_);
  const Answer answer = rejected(sink, batch);
  EXPECT_THAT(answer.items, ElementsAre(1, 2));
  EXPECT_THAT(answer.what, HasSubstr("'bytes' is 9223372036854775808, its column takes "
                                     "9223372036854775807"));
}

TEST_F(SinkPostgresRejectedTest, LimitsAreThoseOfTheTable) {
  run({});
  execute("DROP VIEW sessions_readable");
  execute("ALTER TABLE sessions ALTER label TYPE varchar(5), ALTER agent TYPE text");
  SinkPostgres sink(options_);
  sink.open(context_);
  Batch<Verdict> batch = batch_of({verdict(1, "12345"), verdict(2, "123456")});
  const std::string agent(1000, 'x');
  batch.items[0].session.agent = agent;
  EXPECT_THAT(rejected(sink, batch).items, ElementsAre(1));
  batch.items.pop_back();
  give(sink, batch);
  EXPECT_EQ(query("SELECT length(agent) FROM sessions"), "1000;");
}

TEST_F(SinkPostgresRejectedTest, LabelThatIsTooLongForTheIndex) {
  run({});
  execute("DROP VIEW sessions_readable");
  execute("ALTER TABLE sessions ALTER label TYPE text");
  std::string label;  // that the server cannot make shorter
  std::minstd_rand random;
  for (int i = 0; i < 5000; ++i) label += static_cast<char>('!' + random() % 90);
  Batch<Verdict> batch = batch_of({verdict(1, "a"), verdict(2, label)});
  SinkPostgres sink(options_);
  sink.open(context_);
  const Answer answer = rejected(sink, batch);
  EXPECT_THAT(answer.items, ElementsAre(1));
  EXPECT_THAT(answer.what, HasSubstr("SQLSTATE 54000"));
}

TEST_F(SinkPostgresRejectedTest, RulesOfTheDatabaseRejectTheirRowsAlone) {
  run({});
  execute("ALTER TABLE sessions ADD CONSTRAINT small CHECK (packets NOT BETWEEN 100 AND 104)");
  execute(
      "CREATE FUNCTION no_thirteen() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
      "IF NEW.packets = 13 THEN RAISE EXCEPTION 'thirteen'; END IF; RETURN NEW; END $$");
  execute(
      "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON sessions DEFERRABLE INITIALLY DEFERRED "
      "FOR EACH ROW EXECUTE FUNCTION no_thirteen()");
  Batch<Verdict> batch = batch_of(verdicts(0, 512, "a"));
  SinkPostgres sink(options_);
  sink.open(context_);
  Answer answer = rejected(sink, batch);
  EXPECT_THAT(answer.items, ElementsAre(13, 100, 101, 102, 103, 104));
  EXPECT_THAT(answer.what, HasSubstr("thirteen (SQLSTATE P0001)"));
  batch.items.erase(batch.items.begin(), batch.items.begin() + 14);
  answer = rejected(sink, batch);
  EXPECT_THAT(answer.what, HasSubstr("violates check constraint \"small\" (SQLSTATE 23514)"));
}

TEST_F(SinkPostgresRejectedTest, LabelThatComesLaterCanBeRefusedToo) {
  run(verdicts(1, 3, ""));
  execute("ALTER TABLE sessions ADD CHECK (label <> 'b')");
  Batch<Verdict> batch = batch_of({verdict(1, "a"), verdict(2, "b"), verdict(3, "c")});
  SinkPostgres sink(options_);
  sink.open(context_);
  EXPECT_THAT(rejected(sink, batch).items, ElementsAre(1));
  batch.items.erase(batch.items.begin() + 1);
  give(sink, batch);
  EXPECT_EQ(query("SELECT label FROM sessions ORDER BY session"), "a;;c;");
}

TEST_F(SinkPostgresRejectedTest, EveryRow) {
  run({});
  execute("ALTER TABLE sessions ADD CHECK (packets < 0)");
  Batch<Verdict> batch = batch_of(verdicts(1, 33, "a"));
  SinkPostgres sink(options_);
  sink.open(context_);
  EXPECT_EQ(rejected(sink, batch).items.size(), 33U);
}

TEST_F(SinkPostgresRejectedTest, TakenAloneButNotTogetherIsFatal) {
  run({});
  execute(
      "CREATE FUNCTION few() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
      "IF (SELECT count(*) FROM sessions) > 3 THEN RAISE EXCEPTION 'too many'; END IF; "
      "RETURN NULL; END $$");
  execute("CREATE TRIGGER few AFTER INSERT ON sessions FOR EACH STATEMENT EXECUTE FUNCTION few()");
  Batch<Verdict> batch = batch_of(verdicts(1, 4, "a"));
  SinkPostgres sink(options_);
  sink.open(context_);
  try {
    sink.write(batch);
    FAIL() << "four are too many";
  } catch (const Rejected&) {
    FAIL() << "none of them is bad";
  } catch (const std::runtime_error& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("too many"), HasSubstr("alone is taken")));
  }
  EXPECT_EQ(query("SELECT count(*) FROM sessions"), "0;");
  EXPECT_EQ(receipts_.pending(), 1);
}

}  // namespace
}  // namespace millrace
