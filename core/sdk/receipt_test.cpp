#include "millrace/receipt.h"

#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "millrace/testing.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using testing::WatchedReceipt;

TEST(ReceiptTest, DroppedMeansFailed) {
  WatchedReceipt watched;
  { const Receipt receipt = watched.make(); }
  EXPECT_EQ(watched.failed(), 1);
  Receipt receipt = watched.make();
  receipt = {};
  EXPECT_EQ(watched.failed(), 2);
}

TEST(ReceiptTest, MakerHearsOnceAfterAllShares) {
  WatchedReceipt watched;
  Receipt receipt = watched.make();
  Receipt fork = receipt.fork();
  receipt.done();
  EXPECT_EQ(watched.pending(), 1);
  fork.done();
  fork.fail();  // resolved already
  EXPECT_EQ(watched.done(), 1);
  EXPECT_EQ(watched.failed(), 0);
}

TEST(ReceiptTest, OneFailedShareFailsAll) {
  WatchedReceipt watched;
  Receipt receipt = watched.make();
  receipt.fork().fail();
  receipt.done();
  EXPECT_EQ(watched.failed(), 1);
}

TEST(ReceiptTest, JoinAnswersForAllAndTakesTheEarliestDeadline) {
  WatchedReceipt watched;
  const auto now = std::chrono::steady_clock::now();
  std::vector<Receipt> parts;
  parts.push_back(watched.make());
  parts.emplace_back();
  parts.push_back(Receipt::make([](Outcome) noexcept {}, now));
  Receipt joined = Receipt::join(std::move(parts));
  EXPECT_EQ(joined.deadline(), now);
  joined.done();
  EXPECT_EQ(watched.done(), 1);
}

TEST(ReceiptTest, SharesMayEndOnManyThreads) {
  WatchedReceipt watched;
  for (int round = 0; round < 200; ++round) {
    Receipt receipt = watched.make();
    std::vector<std::jthread> threads;
    for (int i = 0; i < 3; ++i) {
      threads.emplace_back([share = receipt.fork()]() mutable { share.done(); });
    }
    receipt.done();
  }
  EXPECT_EQ(watched.done(), 200);
}

TEST(ReceiptWindowTest, CommitsInOrderAndWaitsForRoom) {
  std::vector<std::uint64_t> commits;
  ReceiptWindow window(2, [&](std::uint64_t position) { commits.push_back(position); });
  Receipt first = window.issue(10);
  Receipt second = window.issue(20);
  EXPECT_FALSE(window.wait_for_room(std::chrono::milliseconds(0)));
  second.done();
  EXPECT_THAT(commits, ElementsAre());
  EXPECT_TRUE(window.wait_for_room(std::chrono::milliseconds(0)));
  first.done();
  EXPECT_THAT(commits, ElementsAre(20));
  EXPECT_TRUE(window.wait_until_empty(std::chrono::milliseconds(0)));
}

TEST(ReceiptWindowTest, NothingIsCommittedFromAFailureOn) {
  std::vector<std::uint64_t> commits;
  ReceiptWindow window(0, [&](std::uint64_t position) { commits.push_back(position); });
  Receipt first = window.issue(1);
  Receipt second = window.issue(2);
  Receipt third = window.issue(3);
  first.done();
  second.fail();
  third.done();
  EXPECT_THAT(commits, ElementsAre(1));
  EXPECT_TRUE(window.failed());
}

TEST(ReceiptLedgerTest, InputWaitsForItsHoldsAndForEarlierInputs) {
  WatchedReceipt watched;
  ReceiptLedger ledger;
  const auto first = ledger.add(watched.make());
  ledger.hold(first);
  ledger.settle();
  const auto second = ledger.add(watched.make());
  ledger.settle();
  EXPECT_EQ(watched.pending(), 2);  // the second has no hold, but the first is before it
  Receipt out = ledger.release({first});
  EXPECT_EQ(watched.pending(), 2);
  out.done();
  EXPECT_EQ(watched.done(), 2);
  EXPECT_EQ(ledger.open(), 0U);
  EXPECT_EQ(second, 1U);
}

TEST(ReceiptLedgerTest, FailureCoversWhatCameAfter) {
  WatchedReceipt watched;
  ReceiptLedger ledger;
  const auto first = ledger.add(watched.make());
  ledger.hold(first);
  (void)ledger.add(watched.make());
  ledger.settle();
  ledger.release({first}).fail();
  EXPECT_EQ(watched.failed(), 2);
}

TEST(ReceiptLedgerTest, InputInWorkIsNotResolvedEarly) {
  WatchedReceipt watched;
  ReceiptLedger ledger;
  const auto first = ledger.add(watched.make());
  ledger.hold(first, 2);
  ledger.forget(first, 2);
  EXPECT_EQ(watched.pending(), 1);
  ledger.settle();
  EXPECT_EQ(watched.done(), 1);
}

}  // namespace
}  // namespace millrace
