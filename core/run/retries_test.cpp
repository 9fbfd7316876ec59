#include "run/retries.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace millrace::host {
namespace {

using namespace std::chrono_literals;
using ::testing::IsEmpty;
using ::testing::MatchesRegex;

TEST(Retries, TellsTheLastErrorForAsLongAsACallIsRepeated) {
  Retries retries;
  EXPECT_THAT(retries.text(), IsEmpty());
  {
    Retries::Call first(retries);
    Retries::Call second(retries);
    EXPECT_THAT(retries.text(), IsEmpty());
    EXPECT_TRUE(first.failed("refused", 1h, {}));
    EXPECT_TRUE(second.failed("timed out", 1h, {}));
    EXPECT_EQ(first.failures(), 1);
    EXPECT_THAT(retries.text(), MatchesRegex("retrying for [0-9]+ s: timed out"));
  }
  EXPECT_THAT(retries.text(), IsEmpty());
}

TEST(Retries, APauseIsNoLongerThanWhatIsLeft) {
  Retries retries;
  for (int i = 0; i < 100; ++i) {
    Retries::Call call(retries);
    const auto pause = call.failed("refused", 1us, {});
    ASSERT_TRUE(pause);
    EXPECT_LE(*pause, 1us);
  }
  Retries::Call call(retries);
  const auto pause = call.failed("refused", 1h, std::chrono::steady_clock::now() + 1ms);
  EXPECT_TRUE(!pause || *pause <= 1ms);
}

TEST(Retries, EndsWithTheTimeAndWithTheDeadline) {
  Retries retries;
  Retries::Call call(retries);
  EXPECT_FALSE(call.failed("refused", 0s, {}));
  EXPECT_FALSE(call.failed("refused", 1h, std::chrono::steady_clock::now()));
}

TEST(Retries, AnOutageEndsWhenACallSucceedsAndNoOtherFails) {
  Retries retries;
  {
    Retries::Call first(retries);
    Retries::Call second(retries);
    (void)first.failed("refused", 1h, {});
    (void)second.failed("timed out", 1h, {});
    ASSERT_TRUE(retries.outage());
    EXPECT_EQ(retries.outage()->failures, 2U);
    EXPECT_EQ(retries.outage()->why, "timed out");
    EXPECT_FALSE(retries.succeeded(true)) << "the other one still fails";
  }
  EXPECT_TRUE(retries.outage()) << "nothing has succeeded since";
  const auto over = retries.succeeded(false);
  ASSERT_TRUE(over);
  EXPECT_THAT(over->over(), MatchesRegex("works again after 2 tries, [0-9]+\\.[0-9] s"));
  EXPECT_FALSE(retries.outage());
  EXPECT_FALSE(retries.succeeded(false)) << "it is over once";
}

TEST(Retries, OutagesThatFollowEachOtherAreToldOnceASecond) {
  Retries retries;
  const Retries::Time start{};
  int told = 0;
  for (int i = 0; i < 40; ++i) {
    Retries::Call call(retries);
    (void)call.failed("deadlock", 1h, {});
    told += retries.tell(start + i * 100ms) ? 1 : 0;
    (void)retries.succeeded(true);
  }
  EXPECT_EQ(told, 4);
}

}  // namespace
}  // namespace millrace::host
