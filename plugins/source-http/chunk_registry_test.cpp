#include "chunk_registry.h"

#include <gtest/gtest.h>

namespace millrace {
namespace {

using State = ChunkRegistry::Claim::State;

class ChunkRegistryTest : public ::testing::Test {
 protected:
  ChunkRegistry::Claim claim(const Origin& origin) { return registry_.claim(origin, wakeup_); }
  void deliver(const Origin& origin) {
    const auto mine = claim(origin);
    ASSERT_EQ(mine.state, State::mine);
    registry_.finish(origin, mine.ticket, {7, 70});
  }

  ChunkRegistry registry_{2, 2};
  std::shared_ptr<Door> door_ = std::make_shared<Door>();
  std::shared_ptr<Wakeup> wakeup_ = std::make_shared<Wakeup>(door_);
};

TEST_F(ChunkRegistryTest, RemembersTheLastChunksOfTheLastAgents) {
  deliver({"a", "1"});
  deliver({"a", "2"});
  EXPECT_EQ(claim({"a", "1"}).state, State::finished);
  EXPECT_EQ(claim({"a", "1"}).counts.packets, 7U);
  deliver({"a", "3"});  // "2" was asked for before "1"
  EXPECT_EQ(claim({"a", "1"}).state, State::finished);
  EXPECT_EQ(claim({"a", "3"}).state, State::finished);
  const auto again = claim({"a", "2"});
  EXPECT_EQ(again.state, State::mine);
  registry_.release({"a", "2"}, again.ticket);

  deliver({"b", "1"});
  EXPECT_EQ(claim({"a", "3"}).state, State::finished);
  deliver({"c", "1"});  // "b" was heard before "a"
  EXPECT_EQ(claim({"a", "3"}).state, State::finished);
  EXPECT_EQ(claim({"c", "1"}).state, State::finished);
  EXPECT_EQ(claim({"b", "1"}).state, State::mine);
}

TEST_F(ChunkRegistryTest, OnlyTheHolderGivesBackAndWaitersAreWoken) {
  int woken = 0;
  const auto waiter = std::make_shared<Wakeup>(door_);
  waiter->attach([&woken] { ++woken; });
  const Origin origin{"a", "1"};
  const auto first = claim(origin);
  EXPECT_EQ(registry_.claim(origin, waiter).state, State::busy);
  EXPECT_EQ(registry_.claim(origin, waiter).state, State::busy);
  registry_.release(origin, first.ticket + 1);
  EXPECT_EQ(woken, 0);
  registry_.release(origin, first.ticket);
  EXPECT_EQ(woken, 1);
  const auto second = claim(origin);
  ASSERT_EQ(second.state, State::mine);
  EXPECT_EQ(registry_.claim(origin, waiter).state, State::busy);
  // The first was delivered after all: that ends nothing of the second, but is known.
  registry_.finish(origin, first.ticket, {});
  EXPECT_EQ(woken, 1);
  EXPECT_EQ(claim(origin).state, State::finished);
  registry_.finish(origin, second.ticket, {});
  EXPECT_EQ(woken, 2);
  EXPECT_EQ(claim(origin).state, State::finished);
}

}  // namespace
}  // namespace millrace
