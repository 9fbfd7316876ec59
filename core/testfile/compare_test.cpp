#include "testfile/compare.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config/toml.h"

namespace millrace::host {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Optional;

ConfigValue value(const std::string& text) {
  Report report;
  const TomlDocument document = read_toml("t.toml", "v = " + text, Variables(), report);
  EXPECT_TRUE(report.empty()) << report.text();
  return document.root.at(0).value;
}

bool agree(const std::string& expected, const std::string& got, double tolerance = kTolerance) {
  return matches(value(expected), to_json(got), tolerance);
}

TEST(CompareTest, OnlyTheNamedFieldsCount) {
  EXPECT_TRUE(agree("{ a = 1 }", R"({"a":1,"b":2})"));
  EXPECT_FALSE(agree("{ a = 1, c = 3 }", R"({"a":1,"b":2})"));
  EXPECT_TRUE(agree("{ a = { b = 'x' } }", R"({"a":{"b":"x","c":1}})"));
  EXPECT_FALSE(agree("{ a = '1' }", R"({"a":1})"));
  EXPECT_TRUE(agree("[1, 2]", "[1,2]"));
  EXPECT_FALSE(agree("[1, 2]", "[1,2,3]"));
  EXPECT_TRUE(agree("7", "7"));
  EXPECT_TRUE(agree("true", "true"));
}

TEST(CompareTest, NumbersHaveATolerance) {
  EXPECT_TRUE(agree("0.1", "0.10000000001"));
  EXPECT_FALSE(agree("0.1", "0.11"));
  EXPECT_TRUE(agree("0.1", "0.11", 0.05));
  EXPECT_TRUE(agree("1", "1.0"));
  EXPECT_FALSE(agree("1000000000", "1000000001", 0.5)) << "integers are compared exactly";
}

TEST(CompareTest, Conditions) {
  EXPECT_TRUE(agree("{ min = 2, max = 3 }", "2.5"));
  EXPECT_FALSE(agree("{ min = 2 }", "1"));
  EXPECT_TRUE(agree("{ matches = '^10\\.' }", R"("10.0.0.1")"));
  EXPECT_FALSE(agree("{ matches = '^10\\.' }", "10"));
  EXPECT_TRUE(agree("{ not = 'web' }", R"("dns")"));
  EXPECT_TRUE(agree("{ one_of = ['web', 'dns'] }", R"("dns")"));
  EXPECT_TRUE(agree("{ min = 2 }", R"({"min":2})")) << "a field of that name";
}

TEST(CompareTest, ConditionsThatCannotBeMeantAreReported) {
  Report report;
  const TomlDocument document = read_toml(
      "t.toml", "v = [{ a = { matches = '(' } }, { b = { min = 'x' } }, { c = { one_of = 1 } }]",
      Variables(), report);
  check_expected(document.root.at(0).value, report);
  EXPECT_EQ(report.size(), 3U) << report.text();
  EXPECT_THAT(report.text(), HasSubstr("no regular expression"));
}

std::vector<std::optional<std::size_t>> places(const std::string& expected,
                                               const std::vector<std::string>& got, bool ordered) {
  std::vector<Json> items;
  for (const std::string& one : got) items.push_back(to_json(one));
  return find_items(*value(expected).list(), items, ordered, kTolerance);
}

TEST(CompareTest, EachItemAnswersForOneExpectation) {
  EXPECT_THAT(places("[1, 1]", {"1", "2"}, false), ElementsAre(Optional(0U), std::nullopt));
  // The first could take either, the second only the first.
  EXPECT_THAT(places("[{ min = 1 }, 1]", {"1", "2"}, false),
              ElementsAre(Optional(1U), Optional(0U)));
}

TEST(CompareTest, OrderedMeansOneAfterTheOther) {
  EXPECT_THAT(places("[1, 3]", {"1", "2", "3"}, true), ElementsAre(Optional(0U), Optional(2U)));
  EXPECT_THAT(places("[3, 1]", {"1", "2", "3"}, true), ElementsAre(Optional(2U), std::nullopt));
}

TEST(CompareTest, DifferenceShowsFieldByField) {
  EXPECT_EQ(difference(value("{ a = 1, b = 'x', lable = 'y' }"),
                       to_json(R"({"a":1,"b":"z","label":"y"})"), kTolerance),
            "  a = 1\n- b = \"x\"\n+ b = \"z\"\n- lable = \"y\"\n"
            "+ there is no field 'lable'; did you mean 'label'?\n");
  EXPECT_EQ(difference(value("1"), to_json("2"), kTolerance), "- 1\n+ 2\n");
}

}  // namespace
}  // namespace millrace::host
