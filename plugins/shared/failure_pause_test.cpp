#include "failure_pause.h"

#include <gtest/gtest.h>

namespace millrace {
namespace {

using namespace std::chrono_literals;

class FailurePauseTest : public ::testing::Test {
 protected:
  void fail(std::uint32_t times) {
    for (std::uint32_t i = 0; i < times; ++i) pause_.failed(now_);
  }
  [[nodiscard]] FailurePause::Time::duration left() const { return pause_.until() - now_; }

  FailurePause pause_;
  FailurePause::Time now_{1h};
};

TEST_F(FailurePauseTest, FewFailuresDoNotPause) {
  fail(FailurePause::kFree);
  EXPECT_LT(pause_.until(), now_);
}

TEST_F(FailurePauseTest, EachFailureAfterAPauseDoublesItUpToFiveSeconds) {
  fail(FailurePause::kFree + 1);
  for (const auto expected : {50ms, 100ms, 200ms, 400ms, 800ms, 1600ms, 3200ms, 5000ms, 5000ms}) {
    EXPECT_EQ(left(), expected);
    fail(100);  // emitted before the pause
    EXPECT_EQ(left(), expected);
    now_ = pause_.until();
    fail(1);
  }
}

TEST_F(FailurePauseTest, ASuccessEndsIt) {
  fail(FailurePause::kFree + 1);
  pause_.done();
  EXPECT_LT(pause_.until(), now_);
  fail(FailurePause::kFree);
  EXPECT_LT(pause_.until(), now_);
}

}  // namespace
}  // namespace millrace
