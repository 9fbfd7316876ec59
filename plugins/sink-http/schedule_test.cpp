#include "schedule.h"

#include <gtest/gtest.h>

namespace millrace {
namespace {

using namespace std::chrono_literals;

class ScheduleTest : public ::testing::Test {
 protected:
  static UploadOptions pauses() {
    UploadOptions options;
    options.retry_first = 100ms;
    options.retry_max = 1600ms;
    options.refused_pause = 30s;
    return options;
  }

  UploadOptions options_ = pauses();
  Schedule schedule_{options_};
  Schedule::Time now_{std::chrono::hours(1)};
  Retry first_;
  Retry second_;
};

TEST_F(ScheduleTest, PausesDoubleUpToABoundWithFullJitter) {
  const std::chrono::milliseconds bounds[] = {100ms, 200ms, 400ms, 800ms, 1600ms, 1600ms};
  for (int i = 0; i < 6; ++i) {
    Duration longest{};
    Duration shortest = 1h;
    for (int sample = 0; sample < 300; ++sample) {
      Schedule schedule(options_);
      Retry retry;
      for (int failures = 0; failures <= i; ++failures) {
        schedule.failed(retry, Failure::again, {}, now_);
      }
      longest = std::max<Duration>(longest, schedule.opens() - now_);
      shortest = std::min<Duration>(shortest, schedule.opens() - now_);
    }
    EXPECT_LE(longest, bounds[i]);
    EXPECT_GT(longest, bounds[i] * 8 / 10) << i;
    EXPECT_LT(shortest, bounds[i] * 2 / 10) << i;
  }
}

TEST_F(ScheduleTest, OneAtATimeWhileItFails) {
  EXPECT_TRUE(schedule_.open(now_, 3));
  schedule_.failed(first_, Failure::again, {}, now_);
  now_ += 100ms;
  EXPECT_TRUE(schedule_.open(now_, 0));
  EXPECT_FALSE(schedule_.open(now_, 1));
  schedule_.succeeded();
  EXPECT_TRUE(schedule_.open(now_, 3));
}

TEST_F(ScheduleTest, WhatTheServerAsksForIsKeptAlsoInAHurry) {
  schedule_.failed(first_, Failure::again, 5s, now_);
  schedule_.hurry();
  EXPECT_FALSE(schedule_.open(now_ + 4999ms, 0));
  EXPECT_TRUE(schedule_.open(now_ + 5s, 0));
}

TEST_F(ScheduleTest, RefusedIsALongPauseButNotInAHurry) {
  schedule_.failed(first_, Failure::refused, {}, now_);
  EXPECT_EQ(schedule_.opens(), now_ + 30s);
  EXPECT_TRUE(schedule_.ready(first_, now_)) << "it says nothing of the chunk";
  schedule_.hurry();
  EXPECT_TRUE(schedule_.open(now_, 0));
}

TEST_F(ScheduleTest, AServerThatIsAwayDoesNotChangeTheOrder) {
  for (int i = 0; i < 10; ++i) {
    schedule_.failed(first_, Failure::unreachable, {}, now_);
    EXPECT_TRUE(schedule_.ready(first_, now_));
    now_ += 10s;
  }
}

TEST_F(ScheduleTest, AChunkThatFailsWhileOthersPassWaitsAlone) {
  for (int i = 0; i < 2; ++i) {
    schedule_.failed(first_, Failure::again, {}, now_);
    now_ += 10s;
    EXPECT_TRUE(schedule_.ready(first_, now_)) << "the oldest is first";
  }
  schedule_.failed(first_, Failure::again, {}, now_);
  EXPECT_FALSE(schedule_.ready(first_, now_ + 1s)) << "now others may show that it is the chunk";
  EXPECT_TRUE(schedule_.ready(second_, now_));
  schedule_.succeeded();
  EXPECT_TRUE(schedule_.ready(first_, now_)) << "or that the server is back";
  schedule_.failed(first_, Failure::again, {}, now_);
  EXPECT_TRUE(schedule_.open(now_, 3)) << "the others do not wait for it";
  EXPECT_FALSE(schedule_.ready(first_, now_ + 100ms));
  schedule_.succeeded();
  EXPECT_FALSE(schedule_.ready(first_, now_ + 100ms));
  EXPECT_TRUE(schedule_.ready(first_, now_ + 2s));
}

}  // namespace
}  // namespace millrace
