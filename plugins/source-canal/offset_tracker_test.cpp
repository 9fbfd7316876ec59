#include "offset_tracker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace millrace {

namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

const Place kA{"t", 0};
const Place kB{"t", 1};

TEST(OffsetTrackerTest, CommitsBelowTheFirstBatchThatIsNotDone) {
  OffsetTracker tracker;
  tracker.add(0, kA, 10, 15);
  tracker.add(1, kA, 15, 18);
  tracker.add(1, kB, 3, 4);
  EXPECT_THAT(tracker.resolve(1, Outcome::done), IsEmpty());
  EXPECT_THAT(tracker.to_commit(), ElementsAre(PlaceOffset{kB, 4}));
  EXPECT_THAT(tracker.resolve(0, Outcome::done), IsEmpty());
  EXPECT_THAT(tracker.to_commit(), ElementsAre(PlaceOffset{kA, 18}));
  EXPECT_THAT(tracker.to_commit(), IsEmpty());
}

TEST(OffsetTrackerTest, AFailedBatchTakesBackAllAfterItInItsPartitions) {
  OffsetTracker tracker;
  tracker.add(0, kA, 0, 5);
  tracker.add(1, kA, 5, 7);
  tracker.add(2, kA, 7, 9);
  tracker.add(2, kB, 1, 2);
  EXPECT_THAT(tracker.resolve(1, Outcome::failed), ElementsAre(PlaceOffset{kA, 5}));
  tracker.resolve(2, Outcome::done);
  EXPECT_THAT(tracker.to_commit(), ElementsAre(PlaceOffset{kB, 2}));
  tracker.resolve(0, Outcome::done);
  EXPECT_THAT(tracker.to_commit(), ElementsAre(PlaceOffset{kA, 5}));
  // Read again, in other portions.
  tracker.add(3, kA, 5, 9);
  tracker.resolve(3, Outcome::done);
  EXPECT_THAT(tracker.to_commit(), ElementsAre(PlaceOffset{kA, 9}));
}

TEST(OffsetTrackerTest, AnEarlierFailureGoesBackFurther) {
  OffsetTracker tracker;
  tracker.add(0, kA, 0, 5);
  tracker.add(1, kA, 5, 7);
  EXPECT_THAT(tracker.resolve(1, Outcome::failed), ElementsAre(PlaceOffset{kA, 5}));
  EXPECT_THAT(tracker.resolve(0, Outcome::failed), ElementsAre(PlaceOffset{kA, 0}));
  EXPECT_THAT(tracker.to_commit(), IsEmpty());
}

TEST(OffsetTrackerTest, AForgottenPartitionsBatchesHaveNoEffect) {
  OffsetTracker tracker;
  tracker.add(0, kA, 0, 5);
  tracker.forget(kA);
  tracker.add(1, kA, 0, 3);
  EXPECT_THAT(tracker.resolve(0, Outcome::done), IsEmpty());
  EXPECT_THAT(tracker.unconfirmed(), IsEmpty());
  tracker.resolve(1, Outcome::done);
  EXPECT_THAT(tracker.unconfirmed(), ElementsAre(PlaceOffset{kA, 3}));
}

TEST(OffsetTrackerTest, WhatIsNotConfirmedIsAskedForAgain) {
  OffsetTracker tracker;
  tracker.add(0, kA, 0, 5);
  tracker.resolve(0, Outcome::done);
  EXPECT_THAT(tracker.to_commit(), ElementsAre(PlaceOffset{kA, 5}));
  EXPECT_THAT(tracker.unconfirmed(kA), ElementsAre(PlaceOffset{kA, 5}));
  EXPECT_THAT(tracker.unconfirmed(kB), IsEmpty());
  tracker.not_committed(kA);
  EXPECT_THAT(tracker.to_commit(), ElementsAre(PlaceOffset{kA, 5}));
  tracker.confirmed({kA, 5});
  EXPECT_THAT(tracker.unconfirmed(), IsEmpty());
}

}  // namespace

}  // namespace millrace
