#include "json_values.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace millrace {
namespace {

using ::testing::StartsWith;

std::string fault(std::string_view text) {
  try {
    (void)read_json_values(text, "/a");
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "accepted";
}

TEST(JsonValues, TextsAreAsTheyAreAndTheRestAsInToml) {
  const std::map<std::string, std::string> expected{{"text", "a \"b\"\n\xC3\xA4"},
                                                    {"number", "-7"},
                                                    {"fraction", "1.0"},
                                                    {"truth", "true"},
                                                    {"in.one.x", "y"},
                                                    {"in.two", ""}};
  EXPECT_EQ(read_json_values(R"({"text": "a \"b\"\n\u00e4", "number": -7, "fraction": 1.0,
                                 "truth": true, "no": null,
                                 "in": {"one": {"x": "y"}, "two": ""}})",
                             "/a"),
            expected);
}

TEST(JsonValues, MistakesHaveAPlace) {
  EXPECT_THAT(fault("{\"a\": 1,\n \"b\": }"), StartsWith("/a:2:7: syntax error"));
  EXPECT_THAT(fault(""), StartsWith("/a:1:1: "));
  EXPECT_EQ(fault("[1]"), "/a:1:1: expected a JSON object");
  EXPECT_EQ(fault(R"({"a": {"b": [1]}})"),
            "/a: 'a.b' is a list; expected a text, a number, true or false");
  EXPECT_EQ(fault(R"({"a": {"b": 1}, "a.b": 2})"), "/a: 'a.b' is there twice");
  EXPECT_THAT(fault("{\"a\": \"\xFF\"}"), StartsWith("/a:1:"));
}

TEST(JsonValues, NamesWhatIsDifferentWithoutItsValue) {
  const auto toml = [](std::string_view before, std::string_view after) {
    return different_keys(ValueFormat::toml, before, after);
  };
  EXPECT_EQ(toml("a = 1\nb = 2\nc = 3\n", "a = 1\nb = 'x'\nd = 4\n"), "b, c, d");
  EXPECT_EQ(toml("a = 1\n", "a  =  1\n"), "how it is written");
  EXPECT_EQ(toml("a = = 1\n", "a = 1\n"), "all of it, as it could not be read before");
  EXPECT_EQ(different_keys(ValueFormat::json, R"({"a": "x"})", R"({"a": "y"})"), "a");
}

TEST(JsonValues, DeepObjectsAreMistakesWithAPlace) {
  std::string deep;
  std::string end;
  for (int i = 0; i < 60000; ++i) {
    deep += "{\"a\":";
    end += '}';
  }
  EXPECT_THAT(fault("\n" + deep + "1" + end), StartsWith("/a:2:321: nested deeper than 64 levels"));
  EXPECT_THAT(fault(std::string(60000, '[')), StartsWith("/a:1:65: nested deeper than 64 levels"));
}

}  // namespace
}  // namespace millrace
