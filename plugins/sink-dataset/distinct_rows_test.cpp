#include "distinct_rows.h"

#include <algorithm>
#include <random>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace millrace {
namespace {

using ::testing::ElementsAre;

struct Given {
  std::string features;
  std::string label;
};

SessionInfo session(std::uint8_t number) {
  SessionInfo info;
  info.id.fill(number);
  return info;
}

void add(DistinctRows& rows, const Given& given, std::uint8_t number = 0) {
  rows.add({reinterpret_cast<const std::uint8_t*>(given.features.data()), given.features.size()},
           given.label, session(number));
}

/// Rows as a test compares them: part, features, label.
std::vector<std::string> content(const DataSplit& split) {
  std::vector<std::string> list;
  for (const auto* part : {&split.train, &split.dev}) {
    for (const LabelledRow& row : *part) {
      list.push_back((part == &split.dev ? "dev " : "train ") + std::string(row.features) + " " +
                     split.labels[row.label]);
    }
  }
  return list;
}

std::vector<Given> many(int rows) {
  std::vector<Given> list;
  for (int i = 0; i < rows; ++i) list.push_back({std::to_string(i), i % 10 == 0 ? "rare" : "web"});
  return list;
}

TEST(DistinctRowsTest, DuplicatesCountOnceAndAmbiguousOnesNotAtAll) {
  DistinctRows rows(1, 100);
  for (const Given& given : {Given{"a", "web"},
                             {"b", "web"},
                             {"a", "web"},
                             {"b", "mail"},
                             {"c", "mail"},
                             {"b", "web"},
                             {"d", "ftp"},
                             {"d", "web"}}) {
    add(rows, given);
  }
  const DataSplit split = rows.split(0);
  EXPECT_THAT(split.labels, ElementsAre("mail", "web"));
  EXPECT_THAT(split.without, ElementsAre("ftp"));
  EXPECT_THAT(content(split), ::testing::UnorderedElementsAre("train a web", "train c mail"));
  EXPECT_EQ(split.duplicates, 1U);
  EXPECT_EQ(split.ambiguous, 5U);
  EXPECT_EQ(split.beyond, 0U);
}

TEST(DistinctRowsTest, OrderOfTheSessionsDoesNotMatter) {
  std::vector<Given> given = many(300);
  const std::vector<Given> again = many(100);
  given.insert(given.end(), again.begin(), again.end());
  given.push_back({"7", "rare"});
  std::mt19937 dice(3);
  std::vector<std::string> first;
  for (const std::size_t most : {1000U, 50U}) {
    for (int i = 0; i < 5; ++i) {
      DistinctRows rows(1, most);
      for (const Given& one : given) add(rows, one);
      const DataSplit split = rows.split(0.2);
      EXPECT_EQ(
          split.train.size() + split.dev.size() + split.duplicates + split.ambiguous + split.beyond,
          given.size());
      if (i == 0) first = content(split);
      EXPECT_EQ(content(split), first);
      std::ranges::shuffle(given, dice);
    }
    EXPECT_LE(first.size(), most);
  }
}

TEST(DistinctRowsTest, EveryClassHasItsShareAndNoRowIsInBothParts) {
  DistinctRows rows(1, 1000);
  for (const Given& given : many(300)) add(rows, given);
  add(rows, {"x", "single"});
  const DataSplit split = rows.split(0.2);
  EXPECT_EQ(split.dev.size(), 60U);
  const auto rare =
      static_cast<std::uint32_t>(std::ranges::find(split.labels, "rare") - split.labels.begin());
  EXPECT_EQ(std::ranges::count(split.dev, rare, &LabelledRow::label), 6);
  std::set<std::string_view> features;
  for (const auto* part : {&split.train, &split.dev}) {
    for (const LabelledRow& row : *part) EXPECT_TRUE(features.insert(row.features).second);
  }
  EXPECT_EQ(features.size(), 301U);
  // A class always has something to be learned from.
  const DataSplit most = rows.split(0.9);
  const auto single =
      static_cast<std::uint32_t>(std::ranges::find(most.labels, "single") - most.labels.begin());
  EXPECT_EQ(std::ranges::count(most.train, single, &LabelledRow::label), 1);
}

TEST(DistinctRowsTest, AnotherSeedGivesAnotherSplit) {
  std::vector<std::vector<std::string>> results;
  for (const std::uint64_t seed : {1U, 2U}) {
    DistinctRows rows(seed, 1000);
    for (const Given& given : many(100)) add(rows, given);
    results.push_back(content(rows.split(0.2)));
    std::ranges::sort(results.back());
  }
  EXPECT_NE(results[0], results[1]);
}

TEST(DistinctRowsTest, ARowNamesTheSessionWithTheLowestId) {
  DistinctRows rows(1, 10);
  for (const std::uint8_t number : {7, 3, 5}) add(rows, {"a", "web"}, number);
  EXPECT_EQ(rows.split(0).train[0].session->id, session(3).id);
}

}  // namespace
}  // namespace millrace
