#include <stdexcept>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "run/test_stages.h"

namespace millrace::host {
namespace {

using namespace testing;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

TEST_F(PipelineTest, AnyOtherExceptionEndsThePipelineAndTheRestDrains) {
  source(-1, 5);
  through(0,
          [](Batch<Number>& in) {
            if (in.items.front().value == 500) throw std::logic_error("broken");
          },
          {.workers = 2});
  sink({1});
  EXPECT_EQ(run(), Exit::failed);
  EXPECT_GE(notes_.values.size(), 400U);
  EXPECT_GT(notes_.receipts_failed, 0);
  EXPECT_EQ(notes_.flushes, 1);
}

TEST_F(PipelineTest, SomethingThatIsNoExceptionIsCaughtAsWell) {
  source(5, 5);
  sink({0}, [](Batch<Number>&) { throw 42; });
  EXPECT_EQ(run(), Exit::failed);
}

TEST_F(PipelineTest, BranchThatIsNotRequiredDoesNotStopTheOthers) {
  source(1000, 10);
  sink({0});
  sink({0}, [](Batch<Number>&) { throw std::runtime_error("dead output"); }, {.required = false});
  EXPECT_EQ(run(), Exit::failed) << "it is told in the end";
  EXPECT_EQ(notes_.values, numbers(1000));
  EXPECT_EQ(notes_.receipts_done, 100);
  EXPECT_EQ(notes_.receipts_failed, 0);
}

/// Converts nothing: throws at the first batch in which a number is at least `from`.
InputAdapter throwing(int from) {
  return {&item_type<Number>(), [from](BatchBase& batch) {
            auto& numbers = static_cast<Batch<Number>&>(batch);
            if (!numbers.items.empty() && numbers.items.back().value >= from) {
              throw std::invalid_argument("no such number");
            }
            return batch.type().box(std::move(batch));
          }};
}

/// What is told of the stage `sink` and of the one before it.
auto blames_the_sink() {
  return AllOf(HasSubstr("sink: converting its input: no such number"),
               HasSubstr("stage 'sink' (sink)"), Not(HasSubstr("stage 'numbers'")),
               Not(HasSubstr("stage 'through'")));
}

TEST_F(PipelineTest, AdapterThatThrowsIsTheFailureOfItsOwnStage) {
  source(100, 10);
  sink({0});
  builder_.adapt(throwing(50));
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(run(), Exit::failed);
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), blames_the_sink());
  EXPECT_EQ(notes_.values, numbers(50));
  EXPECT_EQ(notes_.receipts_done, 5);
  EXPECT_GT(notes_.receipts_failed, 0);
  EXPECT_EQ(account(0).failed.value(), 0U);
  EXPECT_GT(account(1).failed.value(), 0U);
}

TEST_F(PipelineTest, AdapterBehindATransformWithWorkersIsNotTheTransformsFailure) {
  source(100, 10);
  through(0, [](Batch<Number>&) {}, {.workers = 2});
  sink({1}, {}, {.queue = QueueOptions{}});
  builder_.adapt(throwing(50));
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(run(), Exit::failed);
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), blames_the_sink());
  EXPECT_EQ(account(1).failed.value(), 0U);
  EXPECT_GT(account(2).failed.value(), 0U);
}

TEST_F(PipelineTest, AdapterOfABranchThatIsNotRequiredDoesNotStopTheOthers) {
  source(100, 10);
  sink({0});
  sink({0}, {}, {.required = false});
  builder_.adapt(throwing(0));
  EXPECT_EQ(run(), Exit::failed) << "it is told in the end";
  EXPECT_EQ(notes_.values, numbers(100));
  EXPECT_EQ(notes_.receipts_done, 10);
  EXPECT_EQ(account(2).dropped().at("stage-failed"), 100U);
}

}  // namespace
}  // namespace millrace::host
