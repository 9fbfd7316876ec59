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

}  // namespace
}  // namespace millrace::host
