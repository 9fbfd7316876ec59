#include "protocol.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

Card three() {
  Card card;
  card.name = "tiny";
  card.labels = {"zero", "one", "two"};
  return card;
}

/// What is wrong with an answer about one session.
std::string problem(const std::string& verdict, bool all_classes = false) {
  try {
    (void)AnswerReader(three(), all_classes).read(R"({"verdicts": [)" + verdict + "]}", 1);
  } catch (const BadAnswer& error) {
    return error.what();
  }
  return "none";
}

TEST(AnswerReaderTest, ReadsWhatIsRight) {
  const std::vector<Opinion> opinions = AnswerReader(three(), false)
                                            .read(R"({"verdicts": [
      {"label": "one", "confidence": 0.5}, {"logits": [0, -1e30, 2]},
      {"probabilities": [0.333, 0.333, 0.333]}, null], "more": {}})",
                                                  4);
  ASSERT_THAT(opinions, SizeIs(4));
  EXPECT_EQ(opinions[0].kind, Opinion::Kind::label);
  EXPECT_EQ(opinions[0].index, 1U);
  EXPECT_EQ(opinions[0].confidence, 0.5F);
  EXPECT_EQ(opinions[1].kind, Opinion::Kind::logits);
  EXPECT_THAT(opinions[1].values, ElementsAre(0, -1e30F, 2));
  EXPECT_EQ(opinions[2].kind, Opinion::Kind::probabilities);
  EXPECT_EQ(opinions[3].kind, Opinion::Kind::none);
}

TEST(AnswerReaderTest, SaysWhatItExpected) {
  for (const auto& [verdict, expected] : std::vector<std::pair<std::string, std::string>>{
           {"7", "verdicts[0] is 7; expected an object"},
           {"{}", "verdicts[0] is {}; expected one of 'label'"},
           {R"({"label": "one", "confidence": 1, "logits": [1, 2, 3]})", "expected one of 'label'"},
           {R"({"label": "one"})", "verdicts[0].confidence is null; expected a number"},
           {R"({"label": "one", "confidence": "1"})", "expected a number"},
           {R"({"label": "one", "confidence": 1.01})", "expected a probability, 0 to 1"},
           {R"({"label": "one", "confidence": -0.1})", "expected a probability, 0 to 1"},
           {R"({"label": 1, "confidence": 1})", "verdicts[0].label is 1; expected a label"},
           {R"({"label": "unknown", "confidence": 1})", "expected a label of the card"},
           {R"({"logits": 3})", "verdicts[0].logits is 3; expected a list of 3 numbers"},
           {R"({"logits": [1, 2]})", "one for each label of the card; there are 2"},
           {R"({"logits": [1, 2, 3, 4]})", "there are 4"},
           {R"({"logits": [1, null, 3]})", "verdicts[0].logits[1] is null; expected a number"},
           {R"({"logits": [1, 1e39, 3]})", "expected a finite number of single precision"},
           {R"({"logits": [1, 1e999, 3]})", "is no JSON: "},
           {R"({"logits": [1, NaN, 3]})", "is no JSON: "},
           {R"({"probabilities": [0.5, 0.2, 1.5]})", "probabilities[2] is 1.5; expected a prob"},
           {R"({"probabilities": [0.5, 0.2, 0.2]})", "make 1 together; they make 0.900"},
       }) {
    EXPECT_THAT(problem(verdict), HasSubstr(expected)) << verdict;
  }
  EXPECT_EQ(problem("null"), "none");
}

TEST(AnswerReaderTest, AllClassesIfTheyAreAskedFor) {
  EXPECT_THAT(problem(R"({"label": "one", "confidence": 1})", true),
              HasSubstr("because of the option 'probabilities'"));
  EXPECT_EQ(problem(R"({"logits": [1, 2, 3]})", true), "none");
}

TEST(AnswerReaderTest, AnythingElseIsNoAnswer) {
  for (const std::string text : {"[]", "3", "null", "{}", R"({"verdicts": {}})", R"("verdicts")"}) {
    try {
      (void)AnswerReader(three(), false).read(text, 1);
      FAIL() << text;
    } catch (const BadAnswer& error) {
      EXPECT_THAT(error.what(), HasSubstr(R"(expected {"verdicts": [...]})")) << text;
    }
  }
}

TEST(AnswerReaderTest, MessagesStayShortWhateverIsSent) {
  EXPECT_LT(problem('"' + std::string(100000, 'x') + '"').size(), 300U);
  EXPECT_THAT(problem(std::string(100000, '[')), HasSubstr("nested too deep"));
  const std::string deep = std::string(100000, '[') + std::string(100000, ']');
  EXPECT_THAT(problem(deep), HasSubstr("nested too deep; expected"));
}

}  // namespace
}  // namespace millrace
