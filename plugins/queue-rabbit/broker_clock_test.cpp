#include "broker_clock.h"

#include <gtest/gtest.h>

namespace millrace {
namespace {

using namespace std::chrono_literals;
using Steady = BrokerClock::Steady;

/// A broker whose clock is ahead of the steady clock by `offset`, asked at a steady time.
void ask(BrokerClock& clock, std::chrono::milliseconds offset, std::chrono::milliseconds at,
         std::chrono::milliseconds way = 2ms) {
  const auto stamp = std::chrono::floor<std::chrono::seconds>(at + way / 2 + offset);
  clock.add(Steady(at), Steady(at + way), stamp);
}

TEST(BrokerClockTest, OneStampTellsTheTimeUpToASecond) {
  BrokerClock clock;
  ask(clock, 1'000'000'300ms, 500ms);
  EXPECT_LE(clock.earliest(), 1'000'000'300ms);
  EXPECT_GE(clock.latest(), 1'000'000'300ms);
  EXPECT_LE(clock.latest() - clock.earliest(), 1002ms);
}

TEST(BrokerClockTest, StampsAcrossASecondNarrowIt) {
  for (const auto offset : {1'000'000'000ms, 1'000'000'300ms, 1'000'000'999ms}) {
    BrokerClock clock;
    for (int i = 0; i < 11; ++i) ask(clock, offset, 777ms + 100ms * i);
    EXPECT_LE(clock.earliest(), offset);
    EXPECT_GE(clock.latest(), offset);
    EXPECT_LE(clock.latest() - clock.earliest(), 105ms);
  }
}

TEST(BrokerClockTest, AWallClockThatMayBeRightIsTaken) {
  BrokerClock clock;
  ask(clock, 1'000'000'300ms, 500ms);
  EXPECT_EQ(clock.compare(1'000'000'310ms), 0ms);
  EXPECT_EQ(clock.earliest(), 1'000'000'310ms);
  EXPECT_EQ(clock.latest(), 1'000'000'310ms);
}

TEST(BrokerClockTest, AWallClockThatIsWrongIsMeasuredAndNotTaken) {
  for (const auto wrong : {-3'600'000ms, -60'000ms, 60'000ms, 3'600'000ms}) {
    BrokerClock clock;
    for (int i = 0; i < 11; ++i) ask(clock, 1'000'000'300ms, 500ms + 100ms * i);
    EXPECT_LE(std::chrono::abs(clock.compare(1'000'000'300ms + wrong) - wrong), 105ms);
    EXPECT_LE(clock.latest(), 1'000'000'410ms);
    EXPECT_GE(clock.earliest(), 1'000'000'190ms);
  }
}

TEST(BrokerClockTest, ABrokersClockThatIsSetIsFollowed) {
  BrokerClock clock;
  ask(clock, 1'000'000'300ms, 500ms);
  ask(clock, 5'000'000ms, 700ms);
  EXPECT_LE(clock.earliest(), 5'000'000ms);
  EXPECT_GE(clock.latest(), 5'000'000ms);
}

TEST(BrokerClockTest, WhatOneMakesDueIsNotTooEarlyForAnother) {
  // Two machines whose steady clocks have nothing in common.
  BrokerClock receiver;
  BrokerClock analyser;
  ask(receiver, 1'000'000'300ms, 500ms);
  ask(analyser, 2'000'000'000ms, 700ms);
  const std::int64_t due = receiver.at(Steady(10s));
  const auto right = Steady(10s + 1'000'000'300ms - 2'000'000'000ms);
  EXPECT_GE(analyser.when(due), right);
  EXPECT_LE(analyser.when(due), right + 2100ms);
}

TEST(BrokerClockTest, AbsurdTimesDoNotOverflow) {
  BrokerClock clock;
  ask(clock, 1'000'000'300ms, 500ms);
  EXPECT_GT(clock.when(INT64_MAX), Steady(1h));
  EXPECT_LT(clock.when(INT64_MIN), Steady(0h));
}

}  // namespace
}  // namespace millrace
