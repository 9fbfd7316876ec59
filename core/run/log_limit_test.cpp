#include "run/log_limit.h"

#include <gtest/gtest.h>

namespace millrace::host {
namespace {

using namespace std::chrono_literals;

TEST(LogLimit, WritesOneLineAPeriodAndLosesNoItem) {
  LogLimit limit;
  const LogLimit::Time start{};
  EXPECT_EQ(limit.admit(3, start), 0U);
  EXPECT_EQ(limit.admit(4, start + 1ms), std::nullopt);
  EXPECT_EQ(limit.admit(5, start + 999ms), std::nullopt);
  EXPECT_EQ(limit.admit(6, start + 1s), 9U);
  EXPECT_EQ(limit.admit(7, start + 1500ms), std::nullopt);
  EXPECT_EQ(limit.take_rest(), 7U);
  EXPECT_EQ(limit.take_rest(), 0U);
}

}  // namespace
}  // namespace millrace::host
