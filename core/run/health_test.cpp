#include "run/health.h"

#include <stdexcept>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "run/test_stages.h"

namespace millrace::host {
namespace {

using namespace testing;
using namespace std::chrono_literals;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

/// Fails twice with the first batch, and looks at the health in between and later.
class HealthTest : public PipelineTest {
 protected:
  void run_with_outage(const HostOptions& host) {
    source(20, 5);
    sink(
        {0},
        [this, tries = 0](Batch<Number>& in) mutable {
          if (in.items.empty()) return;
          if (tries == 1) during_ = pipeline_->health();
          if (tries == 1) metrics_ = metrics_text(pipeline_->stages(), during_.ready());
          if (tries++ < 2) throw Transient("connection refused");
          if (in.items.front().value == 15) after_ = pipeline_->health();
        },
        host);
    EXPECT_EQ(run(), Exit::done);
  }

  Health during_;
  Health after_;
  std::string metrics_;
};

TEST_F(HealthTest, ACallThatIsRepeatedForLongerThanBlockedIsNotReady) {
  options_.blocked = 0ms;
  run_with_outage({});
  EXPECT_FALSE(during_.ready());
  ASSERT_THAT(during_.reasons, SizeIs(1));
  EXPECT_EQ(during_.reasons[0].stage, "sink");
  EXPECT_EQ(during_.reasons[0].what, "connection refused");
  EXPECT_EQ(during_.why(), "sink: connection refused");
  EXPECT_THAT(during_.json(),
              HasSubstr(R"("ready":false,"reasons":[{"stage":"sink","what":"connection refused",)"
                        R"("since":")"));
  EXPECT_THAT(metrics_, HasSubstr("\nmillrace_ready 0\n"));
  EXPECT_THAT(metrics_, HasSubstr("\nmillrace_stage_retrying{stage=\"sink\"} 1\n"));
  EXPECT_TRUE(after_.ready()) << after_.why();
  EXPECT_THAT(after_.degraded, IsEmpty());
}

TEST_F(HealthTest, BeforeThatItIsDegraded) {
  options_.blocked = 1h;
  run_with_outage({});
  EXPECT_TRUE(during_.ready()) << during_.why();
  ASSERT_THAT(during_.degraded, SizeIs(1));
  EXPECT_EQ(during_.degraded[0].stage, "sink");
}

TEST_F(HealthTest, ABranchThatIsNotRequiredIsDegradedAndReady) {
  options_.blocked = 0ms;
  run_with_outage({.required = false});
  EXPECT_TRUE(during_.ready()) << during_.why();
  ASSERT_THAT(during_.degraded, SizeIs(1));
  EXPECT_THAT(during_.json(), HasSubstr(R"("ready":true,"degraded":[{"stage":"sink",)"));
  EXPECT_THAT(during_.json(), HasSubstr(R"("required":false)"));
}

TEST_F(HealthTest, ABranchThatHasFailedForGoodAndIsNotRequiredIsDegradedAndReady) {
  source(20, 5);
  sink({0}, [this](Batch<Number>& in) {
    // Until the other one has failed.
    while (in.items.front().value == 5 && during_.degraded.empty()) during_ = pipeline_->health();
  });
  sink({0}, [](Batch<Number>&) { throw std::runtime_error("dead output"); }, {.required = false});
  EXPECT_EQ(run(), Exit::failed);
  EXPECT_EQ(during_.status, Health::kRunning);
  EXPECT_TRUE(during_.ready()) << during_.why();
  EXPECT_EQ(during_.degraded[0].what, "dead output");
}

TEST_F(HealthTest, AStageThatHasFailedSaysWhy) {
  source(-1, 5);
  sink({0}, [this](Batch<Number>& in) {
    if (in.items.front().value >= 500) throw std::runtime_error("broken");
  });
  EXPECT_EQ(run(), Exit::failed);
  EXPECT_EQ(pipeline_->health().status, Health::kFailed);
  EXPECT_EQ(pipeline_->health().why(), "failed; sink: broken");
}

/// Reports a condition, and asks the host how the pipeline does.
class Reporting final : public Sink<Number> {
 public:
  Reporting(Condition::Grace grace, std::vector<std::string>& heard)
      : grace_(grace), heard_(heard) {}
  void open(Context& context) override {
    context_ = &context;
    heard_.push_back(context.not_ready());
  }
  void write(Batch<Number>& in) override {
    if (in.items.empty()) return;
    Condition& server = context_->condition("server");
    if (in.items.front().value == 0) server.fails("connection refused", grace_);
    if (in.items.front().value == 5) server.fails("timed out", grace_);
    if (in.items.front().value == 10) server.holds();
    heard_.push_back(context_->not_ready());
  }

 private:
  const Condition::Grace grace_;
  std::vector<std::string>& heard_;
  Context* context_ = nullptr;
};

class ConditionTest : public PipelineTest {
 protected:
  void run_with(Condition::Grace grace, std::chrono::milliseconds blocked) {
    options_.blocked = blocked;
    least_ = LogLevel::info;
    source(15, 5);
    builder_.add("sink", StageKind::sink, {0},
                 [=, this] { return std::make_unique<Reporting>(grace, heard_); });
    ::testing::internal::CaptureStderr();
    EXPECT_EQ(run(), Exit::done);
    said_ = ::testing::internal::GetCapturedStderr();
  }
  std::vector<std::string> heard_;
  std::string said_;
};

TEST_F(ConditionTest, AConditionThatFailsForLongerThanBlockedIsNotReady) {
  run_with(Condition::Grace::wait, 0ms);
  EXPECT_THAT(heard_, ::testing::ElementsAre("starting; sink: is being opened",
                                             "sink: server: connection refused",
                                             "sink: server: timed out", ""));
  EXPECT_THAT(said_, ::testing::MatchesRegex("millrace: warning: sink: server: connection refused\n"
                                             "millrace: sink: server: works again after .* s\n"));
  EXPECT_THAT(metrics_text(pipeline_->stages(), true),
              HasSubstr("\nmillrace_condition{stage=\"sink\",name=\"server\"} 1\n"));
}

TEST_F(ConditionTest, BeforeThatThePipelineIsReady) {
  run_with(Condition::Grace::wait, 1h);
  EXPECT_THAT(heard_, ::testing::ElementsAre("starting; sink: is being opened", "", "", ""));
}

TEST_F(ConditionTest, WithoutGraceItIsNotReadyAtOnce) {
  run_with(Condition::Grace::none, 1h);
  EXPECT_EQ(heard_[1], "sink: server: connection refused");
  EXPECT_THAT(said_, HasSubstr("millrace: error: sink: server: connection refused\n"));
}

}  // namespace
}  // namespace millrace::host
