#include "millrace/text_depth.h"

#include <gtest/gtest.h>

namespace millrace {
namespace {

std::string many(std::size_t count, std::string_view text) {
  std::string all;
  for (std::size_t i = 0; i < count; ++i) all += text;
  return all;
}

std::string fault(const std::optional<TextFault>& found) {
  if (!found) return "";
  return std::to_string(found->line) + ':' + std::to_string(found->column);
}

TEST(TextDepth, EveryWayToNestTomlIsBounded) {
  const std::string deep = many(20000, "a.");
  EXPECT_EQ(fault(toml_fault("x = 1\n" + deep + "a = 1\n")), "2:128");
  EXPECT_EQ(fault(toml_fault('[' + deep + "a]\n")), "1:129");
  EXPECT_EQ(fault(toml_fault("[[" + deep + "a]]\n")), "1:130");
  EXPECT_NE(fault(toml_fault(many(20000, "'a' . ") + "a = 1")), "");
  EXPECT_NE(fault(toml_fault("x = " + many(20000, "["))), "");
  EXPECT_NE(fault(toml_fault("x = " + many(20000, "{ a = "))), "");
  EXPECT_NE(fault(toml_fault("x = [\n# ]]]]\n" + many(100, "[\n") + many(100, "]\n") + ']')), "");
  EXPECT_NE(fault(toml_fault("x = { " + deep + "a = 1 }")), "");
  // None of the parts is deep alone.
  EXPECT_NE(fault(toml_fault('[' + many(40, "a.") + "a]\n" + many(40, "b.") + "b = 1\n")), "");
  EXPECT_NE(fault(toml_fault(many(9, "a.a.a.a.a.a.a.a = { ") + "a = 1" + many(9, " }"))), "");
}

TEST(TextDepth, WhatIsNotNestedPasses) {
  EXPECT_EQ(fault(toml_fault(many(20000, "a.b.c = 1.5\n"))), "");
  EXPECT_EQ(fault(toml_fault(many(20000, "[a.b.c]\nx = { y = [1, 2], z.z = 3 }\n"))), "");
  EXPECT_EQ(fault(toml_fault("x = [" + many(20000, "[1.0], {a = 1, b.c = 2},\n") + ']')), "");
  EXPECT_EQ(fault(toml_fault(many(63, "a.") + "a = 1\n")), "");
  EXPECT_EQ(fault(toml_fault("# " + many(20000, "[a."))), "");
  EXPECT_EQ(fault(json_fault('[' + many(20000, "[1],{\"a\":2},") + "0]")), "");
}

TEST(TextDepth, TextsAreNoNesting) {
  const std::string deep = many(20000, "a.[{");
  EXPECT_EQ(fault(toml_fault("x = \"\\\"" + deep + "\"\ny = '" + deep + "\\'\n")), "");
  EXPECT_EQ(fault(toml_fault("x = \"\"\"\n\"\" \\\"\"\" " + deep + "\n\"\"\"\"\"\ny = 1")), "");
  EXPECT_EQ(fault(toml_fault("x = '''\n'' " + deep + "\n'''''\ny = 1")), "");
  EXPECT_EQ(fault(json_fault("{\"" + deep + "\\\"" + deep + "\": \"" + deep + "\"}")), "");
  // And behind them there may be some.
  EXPECT_NE(fault(toml_fault("x = '''\n'''''\n" + many(20000, "a.") + "a = 1")), "");
  EXPECT_NE(fault(toml_fault("x = \"\"\ny = ''\nz = \"\"\"\"\"\"\n" + many(20000, "a.") + "a = 1")),
            "");
}

TEST(TextDepth, JsonIsBoundedToo) {
  EXPECT_EQ(fault(json_fault("{\n" + many(20000, "\"a\":{"))), "2:320");
  EXPECT_NE(fault(json_fault(many(20000, "["))), "");
  EXPECT_EQ(fault(json_fault(many(64, "[") + many(64, "]"))), "");
}

TEST(TextDepth, WhatIsTooLargeIsNotReadAtAll) {
  EXPECT_EQ(fault(toml_fault(std::string(kLongestText + 1, '\n'))), "1:1");
  EXPECT_EQ(fault(json_fault(std::string(kLongestText + 1, ' '))), "1:1");
}

}  // namespace
}  // namespace millrace
