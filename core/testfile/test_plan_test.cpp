#include "testfile/test_plan.h"

#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "run/test_stages.h"
#include "testfile/test_run.h"

namespace millrace::host {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

struct CountOptions {
  std::uint32_t total = 5;
};

class Numbers final : public Source<Number> {
 public:
  explicit Numbers(const CountOptions& options) : total_(static_cast<int>(options.total)) {}
  void run(Output<Number>& out, std::stop_token /*stop*/) override {
    for (int i = 0; i < total_; ++i) {
      Batch<Number> batch(std::vector<Number>{{i}});
      batch.watermark = kTestBegin;
      out.push(std::move(batch));
    }
  }

 private:
  int total_;
};

struct DoubleOptions {
  std::uint32_t factor = 2;
};

class Multiply final : public Transform<Number, Number> {
 public:
  explicit Multiply(const DoubleOptions& options) : factor_(static_cast<int>(options.factor)) {}
  void open(Context& context) override { context_ = &context; }
  void process(Batch<Number>& in, Output<Number>& out) override {
    Batch<Number> made;
    for (const Number& number : in.items) {
      if (number.value == 3) {
        context_->dropped("three", 1);
      } else {
        made.items.push_back({number.value * factor_});
      }
    }
    out.push(std::move(made));
  }

 private:
  int factor_;
  Context* context_ = nullptr;
};

/// Fails if it is ever opened: it is for tests that leave it out.
class Never final : public Sink<Number> {
 public:
  void open(Context& /*context*/) override { throw std::runtime_error("the sink was opened"); }
  void write(Batch<Number>& /*in*/) override {}
};

constexpr const char* kPipeline = R"(
[stage.numbers]
use = "numbers"
[stage.twice]
use = "numbers.multiply"
from = "numbers"
[stage.store]
use = "numbers.never"
from = "twice"
secret = "${NOT_SET_ANYWHERE}"
)";

class TestPlanTest : public ::testing::Test {
 protected:
  TestPlanTest() {
    body_.stages.push_back(source<Numbers, CountOptions>(
        "numbers", "", option<&CountOptions::total>("total", "how many")));
    body_.stages.push_back(transform<Multiply, DoubleOptions>(
        "multiply", "", option<&DoubleOptions::factor>("factor", "by how much")));
    body_.stages.push_back(sink<Never>("never", ""));
    registry_.add({"numbers", "1", {}, {}, &body_});
    folder_ = std::filesystem::temp_directory_path() /
              ("millrace-test-plan-" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
  }
  ~TestPlanTest() override { std::filesystem::remove_all(folder_); }

  /// Runs the only test of a file, here.
  TestResult run(const std::string& test, const std::string& pipeline = kPipeline) {
    report_ = {};
    const auto path = folder_ / "t.toml";
    std::ofstream(path) << test << pipeline;
    TestSurroundings surroundings;
    surroundings.folder = folder_;
    const TestFile file = read_test_file(path, surroundings, report_);
    EXPECT_TRUE(report_.empty()) << report_.text();
    if (file.tests.size() != 1) return {};
    const TestPlan plan = make_test_plan(file, file.tests[0], registry_, report_);
    Logger logger(LogFormat::text, LogLevel::error);
    return run_test(file, file.tests[0], plan, report_, {}, logger);
  }
  static std::string text(const TestResult& result) {
    std::string all;
    for (const std::string& problem : result.problems) all += problem;
    return all;
  }

  PluginBody body_;
  Registry registry_{{}};
  Report report_;
  std::filesystem::path folder_;
};

TEST_F(TestPlanTest, PartOfAPipelineWithItemsOfAPluginsOwnType) {
  const TestResult result = run(R"([[test]]
name = "x"
stages = "..twice"
set = { numbers.total = 4 }
[[test.expect]]
after = "twice"
ordered = true
count = 3
items = [0, 2, 4]
none = [6]
dropped = { three = 1 }
[[test.expect]]
at = "twice"
count = { min = 4, max = 4 }
items = [3]
)");
  EXPECT_THAT(text(result), IsEmpty());
  EXPECT_EQ(result.outcome, TestResult::Outcome::passed);
}

TEST_F(TestPlanTest, DiffOfWhatDidNotCome) {
  const TestResult result = run(R"([[test]]
name = "x"
stages = "numbers..twice"
[[test.expect]]
after = "twice"
count = 5
items = [0, 5]
dropped = { threee = 1 }
)");
  EXPECT_EQ(result.outcome, TestResult::Outcome::failed);
  EXPECT_THAT(text(result),
              AllOf(HasSubstr("after 'twice' (" + (folder_ / "t.toml").string() + ":4)"),
                    HasSubstr("- count = 5\n+ count = 4\n"),
                    HasSubstr("item 2 of 2 did not come; nothing like it is among the 4\n- 5\n"),
                    HasSubstr("+ 2\n"), HasSubstr("there is \"three\" = 1")));
}

TEST_F(TestPlanTest, StubsPassRejectFailAndSwallow) {
  const TestResult result = run(R"([[test]]
name = "x"
[[test.stub]]
stage = "twice"
fail = 2
reject = 1
[[test.stub]]
stage = "store"
[[test.expect]]
at = "store"
count = 4
items = [0, 2, 3, 4]
[[test.expect]]
after = "twice"
rejected = 1
retried = { min = 2 }
)");
  EXPECT_THAT(text(result), IsEmpty());
}

TEST_F(TestPlanTest, ARunThatFailsIsAFailedTestUnlessItHasTo) {
  const std::string test = R"([[test]]
name = "x"
[[test.stub]]
stage = "store"
error = "disk full"
)";
  EXPECT_THAT(text(run(test)), HasSubstr("the pipeline failed"));
  const std::string opened = "[[test]]\nname = \"x\"\n";
  EXPECT_THAT(text(run(opened)), HasSubstr("'NOT_SET_ANYWHERE' is not set"));
  EXPECT_THAT(text(run(opened + "fails = \"NOT_SET\"\n")), IsEmpty());
  EXPECT_THAT(text(run(opened + "fails = \"other words\"\n")),
              HasSubstr("the pipeline failed in another way\n- other words\n+ "));
  EXPECT_THAT(text(run(opened + "stages = \"..twice\"\nfails = \"x\"\n")),
              HasSubstr("the pipeline ended well\n- it fails with \"x\""));
}

TEST_F(TestPlanTest, FilesAreRead) {
  const auto written = folder_ / "out.jsonl";
  std::ofstream(written) << "{\"a\":1}\n{\"a\":2}\n";
  const std::string head = "[[test]]\nname = \"x\"\nstages = \"..twice\"\n[[test.expect]]\n";
  EXPECT_THAT(text(run(head + "file = \"${TMP}/out.jsonl\"\ncount = 2\nitems = [{ a = 2 }]\n"
                              "contains = '\"a\":1'\n")),
              IsEmpty());
  EXPECT_THAT(text(run(head + "file = \"${TMP}/out.jsonl\"\ncontains = 'b'\n")),
              HasSubstr("- contains \"b\""));
  EXPECT_THAT(text(run(head + "file = \"${TMP}/none\"\ncount = 0\n")),
              HasSubstr("there is no such file"));
}

TEST_F(TestPlanTest, MistakesOfPlacesAreReported) {
  EXPECT_THAT(text(run("[[test]]\nname = \"x\"\nstages = \"numbres..twice\"\n")),
              HasSubstr("did you mean 'numbers'?"));
  EXPECT_THAT(text(run("[[test]]\nname = \"x\"\nstages = \"twice\"\n")),
              AllOf(HasSubstr("'twice' reads from 'numbers', which is not under test"),
                    Not(HasSubstr("does not say what it reads from"))));
  EXPECT_THAT(text(run("[[test]]\nname = \"x\"\nstages = \"twice..numbers\"\n")),
              HasSubstr("'twice' does not feed 'numbers'"));
  EXPECT_THAT(text(run("[[test]]\nname = \"x\"\n[[test.stub]]\nstage = \"numbers\"\n")),
              HasSubstr("'numbers' is a source, which no stub is for"));
  EXPECT_THAT(text(run("[[test]]\nname = \"x\"\n[[test.input]]\nat = \"twice\"\npackets = []\n"
                       "[[test.stub]]\nstage = \"store\"\n")),
              HasSubstr("gives Packet, but 'twice' takes Number"));
  EXPECT_THAT(text(run("[[test]]\nname = \"x\"\n[[test.stub]]\nstage = \"twice\"\nlabel = \"x\"\n"
                       "[[test.stub]]\nstage = \"store\"\n")),
              HasSubstr("a label is for sessions"));
}

TEST_F(TestPlanTest, WhatIsNotHereIsAReasonToSkip) {
  host::Test test;
  test.needs = {"numbers"};
  EXPECT_EQ(reason_to_skip(test, registry_), "");
  test.needs = {"numbers", "model-other"};
  EXPECT_EQ(reason_to_skip(test, registry_), "there is no plugin 'model-other' here");
}

TEST_F(TestPlanTest, ResultsGoThroughTheirText) {
  TestResult result;
  result.fail("a \"line\"\n");
  const TestResult read = from_json_text(to_json_text(result));
  EXPECT_EQ(read.outcome, TestResult::Outcome::failed);
  EXPECT_THAT(read.problems, ElementsAre("a \"line\"\n"));
}

}  // namespace
}  // namespace millrace::host
