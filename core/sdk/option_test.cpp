#include "millrace/option.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace millrace {
namespace {

using namespace std::chrono_literals;

enum class Colour : std::uint8_t { red, green };

struct Options {
  std::uint16_t number = 24;
  Duration time = 10s;
  ByteSize size = 64_MiB;
  Colour colour = Colour::green;
  std::vector<std::string> list;
  std::optional<double> maybe;
  bool flag = false;
};

template <class Spec>
std::optional<OptionError> assign(Spec&& built, Options& options, OptionValue value) {
  const OptionSpec spec = std::forward<Spec>(built);
  return spec.assign(&options, value);
}

TEST(OptionTest, DefaultsComeFromTheStruct) {
  EXPECT_EQ(OptionSpec(option<&Options::number>("n", "")).default_value, "24");
  EXPECT_EQ(OptionSpec(option<&Options::time>("t", "")).default_value, "\"10s\"");
  EXPECT_EQ(OptionSpec(option<&Options::size>("s", "")).default_value, "\"64MiB\"");
  EXPECT_EQ(OptionSpec(option<&Options::maybe>("m", "")).default_value, "");
  const OptionSpec colour =
      option<&Options::colour>("c", "").choices({{"red", Colour::red}, {"green", Colour::green}});
  EXPECT_EQ(colour.default_value, "\"green\"");
}

TEST(OptionTest, DurationsAndSizesHaveUnits) {
  Options o;
  EXPECT_FALSE(assign(option<&Options::time>("t", ""), o, {std::string("250ms")}));
  EXPECT_EQ(o.time, 250ms);
  EXPECT_FALSE(assign(option<&Options::time>("t", ""), o, {std::string("1.5h")}));
  EXPECT_EQ(o.time, 90min);
  EXPECT_TRUE(assign(option<&Options::time>("t", ""), o, {std::string("10")}));
  EXPECT_TRUE(assign(option<&Options::time>("t", ""), o, {std::int64_t{10}}));
  EXPECT_TRUE(assign(option<&Options::time>("t", ""), o, {std::string("-1s")}));
  EXPECT_TRUE(assign(option<&Options::time>("t", ""), o, {std::string("99999999999d")}));
  EXPECT_FALSE(assign(option<&Options::size>("s", ""), o, {std::string("2KiB")}));
  EXPECT_EQ(o.size.bytes, 2048U);
  EXPECT_FALSE(assign(option<&Options::size>("s", ""), o, {std::int64_t{7}}));
  EXPECT_EQ(o.size.bytes, 7U);
  EXPECT_TRUE(assign(option<&Options::size>("s", ""), o, {std::string("2 parsecs")}));
}

TEST(OptionTest, OutOfBoundsLeavesTheValue) {
  Options o;
  EXPECT_TRUE(assign(option<&Options::number>("n", ""), o, {std::int64_t{70000}}));
  EXPECT_TRUE(assign(option<&Options::number>("n", "").between(1, 30), o, {std::int64_t{31}}));
  EXPECT_TRUE(assign(option<&Options::number>("n", ""), o, {std::string("24")}));
  EXPECT_EQ(o.number, 24);
  EXPECT_TRUE(assign(option<&Options::maybe>("m", "").between(0, 1), o, {2.0}));
  EXPECT_FALSE(assign(option<&Options::maybe>("m", "").between(0, 1), o, {std::int64_t{1}}));
  EXPECT_EQ(o.maybe, 1.0);
}

TEST(OptionTest, ChoicesSuggest) {
  Options o;
  const auto error = assign(
      option<&Options::colour>("c", "").choices({{"red", Colour::red}, {"green", Colour::green}}),
      o, {std::string("gren")});
  ASSERT_TRUE(error);
  EXPECT_EQ(error->meant, "green");
  EXPECT_THAT(error->expected, ::testing::HasSubstr("\"red\", \"green\""));
}

TEST(OptionTest, OneTextIsAList) {
  Options o;
  EXPECT_FALSE(assign(option<&Options::list>("l", ""), o, {std::string("a")}));
  EXPECT_THAT(o.list, ::testing::ElementsAre("a"));
  EXPECT_FALSE(assign(option<&Options::list>("l", ""), o,
                      {OptionValue::List{{std::string("b")}, {std::string("c")}}}));
  EXPECT_THAT(o.list, ::testing::ElementsAre("b", "c"));
  EXPECT_TRUE(assign(option<&Options::list>("l", ""), o, {OptionValue::List{{true}}}));
}

TEST(NearestTest, FindsTyposAndNothingElse) {
  const std::vector<std::string> names = {"packets", "delay", "source-pcap"};
  EXPECT_EQ(nearest("packet", names), "packets");
  EXPECT_EQ(nearest("dealy", names), "delay");
  EXPECT_EQ(nearest("pcap", names), "source-pcap");
  EXPECT_EQ(nearest("xyz", names), "");
  EXPECT_EQ(nearest("", names), "");
  EXPECT_EQ(nearest("a", {"b", "ab"}), "");
}

}  // namespace
}  // namespace millrace
