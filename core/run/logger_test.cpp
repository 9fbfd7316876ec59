#include "run/logger.h"

#include <gtest/gtest.h>

namespace millrace::host {
namespace {

std::string logged(LogFormat format, std::string_view message) {
  ::testing::internal::CaptureStderr();
  Logger(format, LogLevel::info).log(LogLevel::warning, "stage", message);
  return ::testing::internal::GetCapturedStderr();
}

TEST(Logger, ForeignTextMovesNoCursorAndMakesNoLineOfItsOwn) {
  EXPECT_EQ(logged(LogFormat::text, "ERR x\x1b[31m"), "millrace: warning: stage: ERR x\\x1b[31m\n");
  EXPECT_EQ(logged(LogFormat::text, "x\nmillrace: error: forged"),
            "millrace: warning: stage: x\n  millrace: error: forged\n");
  EXPECT_EQ(logged(LogFormat::text, "x\rmillrace: y\x7f\xc2\x9b"),
            "millrace: warning: stage: x\\x0dmillrace: y\\x7f\\x9b\n");
  EXPECT_EQ(logged(LogFormat::text, std::string_view("a\0b", 3)),
            "millrace: warning: stage: a\\x00b\n");
  EXPECT_EQ(logged(LogFormat::text, "K\xc3\xb6ln\tDom"),
            "millrace: warning: stage: K\xc3\xb6ln\tDom\n");
}

TEST(Logger, ATextThatEndsItsLineMakesOneLine) {
  EXPECT_EQ(logged(LogFormat::text, "two\nlines\n"), "millrace: warning: stage: two\n  lines\n");
}

}  // namespace
}  // namespace millrace::host
