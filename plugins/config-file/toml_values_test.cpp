#include "toml_values.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace millrace {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

std::string fault(std::string_view text) {
  try {
    (void)read_toml_values(text, "agent.toml");
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "accepted";
}

TEST(TomlValues, TextsAreAsTheyAreAndTheRestAsInToml) {
  const std::map<std::string, std::string> expected{{"text", "a \"quoted\"\ntext ä"},
                                                    {"number", "-7"},
                                                    {"fraction", "1.0"},
                                                    {"truth", "true"},
                                                    {"day", "2024-02-29"},
                                                    {"empty", ""}};
  EXPECT_EQ(read_toml_values("text = \"a \\\"quoted\\\"\\ntext ä\"\nnumber = -7\nfraction = 1.0\n"
                             "truth = true\nday = 2024-02-29\nempty = ''\n",
                             "x"),
            expected);
}

TEST(TomlValues, KeysOfInnerTablesAreJoinedByDots) {
  const std::map<std::string, std::string> expected{{"server.host", "h"}, {"server.tls.ca", "c"}};
  EXPECT_EQ(read_toml_values("[server]\nhost = 'h'\ntls = { ca = 'c' }\n", "x"), expected);
  EXPECT_EQ(read_toml_values("\"server.host\" = 'h'\n[server.tls]\nca = 'c'\n", "x"), expected);
}

TEST(TomlValues, NothingIsAnEmptyTable) {
  EXPECT_THAT(read_toml_values("", "x"), IsEmpty());
  EXPECT_THAT(read_toml_values("# only a comment\n[server]\n", "x"), IsEmpty());
}

TEST(TomlValues, MistakesHaveAPlace) {
  EXPECT_THAT(fault("a = 1\nb = = 2\n"), StartsWith("agent.toml:2:5: "));
  EXPECT_EQ(fault("[a]\nlist = [1, 2]\n"),
            "agent.toml:2:8: 'a.list' is a list; expected a text, a number, true or false");
  EXPECT_THAT(fault("'a.b' = 1\n[a]\nb = 2\n"), HasSubstr("'a.b' is there twice"));
  EXPECT_THAT(fault("a = \"\xFF\"\n"), StartsWith("agent.toml:1:"));
}

TEST(TomlValues, DeepTextsAreMistakesWithAPlace) {
  std::string key;
  for (int i = 0; i < 20000; ++i) key += "a.";
  EXPECT_THAT(fault("interface = 'lo'\n" + key + "a = 1\n"),
              StartsWith("agent.toml:2:128: nested deeper than 64 levels"));
  EXPECT_THAT(fault("[" + key + "a]\n"), StartsWith("agent.toml:1:129: nested deeper"));
  EXPECT_THAT(fault("a = " + std::string(20000, '[')),
              StartsWith("agent.toml:1:68: nested deeper"));
}

}  // namespace
}  // namespace millrace
