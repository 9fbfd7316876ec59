#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "card.h"
#include "tests/fixture.h"

namespace millrace {
namespace {

using model_torch_test::CardText;
using model_torch_test::TestFolder;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class CardReaderTest : public ::testing::Test {
 protected:
  Card read(const std::string& text) { return read_card(folder_.write("card.toml", text)); }

  std::string errors(const std::string& text) {
    try {
      (void)read(text);
    } catch (const std::runtime_error& error) {
      return error.what();
    }
    return "no error";
  }

  TestFolder folder_;
};

TEST_F(CardReaderTest, ReadsEveryKey) {
  const Card card = read(R"(
name = "paper"
version = "2"
about = "as in the paper"
labels = ["a", "b"]
min_confidence = 0.9
output = "probabilities"
sha256 = "9CDAeb1174cd0d8e8df5cf825c43f44d4cea9d6e4c9c01ece6cc5a5306821cd7"
[input]
bytes = 784
layer = "l2"
dtype = "float32"
scale = 0.00392156862745098
shape = [1, 28, 28]
padding = 7
min_payload = 2
fragments = false
[training]
anything = 1
[accuracy.f1]
a = 1.0
[calibration]
temperature = 0.85
)");
  EXPECT_EQ(card.name, "paper");
  EXPECT_EQ(card.version, "2");
  EXPECT_THAT(card.labels, ElementsAre("a", "b"));
  EXPECT_EQ(card.min_confidence, 0.9);
  EXPECT_TRUE(card.probabilities);
  EXPECT_EQ(card.sha256, "9cdaeb1174cd0d8e8df5cf825c43f44d4cea9d6e4c9c01ece6cc5a5306821cd7");
  EXPECT_EQ(card.features.bytes, 784U);
  EXPECT_EQ(card.features.layer, Layer::l2);
  EXPECT_EQ(card.features.padding, 7);
  EXPECT_EQ(card.features.min_payload, 2U);
  EXPECT_FALSE(card.features.fragments);
  EXPECT_TRUE(card.tensor.floating);
  EXPECT_EQ(card.tensor.scale, 1.0F / 255);
  EXPECT_THAT(card.tensor.shape, ElementsAre(1, 28, 28));
}

TEST_F(CardReaderTest, LeavesOutWhatHasADefault) {
  const Card card = read(CardText{}.text());
  EXPECT_EQ(card.min_confidence, 0);
  EXPECT_EQ(card.features.padding, 0);
  EXPECT_EQ(card.features.min_payload, 1U);
  EXPECT_TRUE(card.features.fragments);
  EXPECT_FALSE(card.tensor.floating);
  EXPECT_EQ(card.tensor.scale, 1.0F);
}

TEST_F(CardReaderTest, TellsAllMistakesWithTheirPlaces) {
  const std::string text = errors(R"(name = 5
versoin = "1"
labels = ["a", "a", ""]
min_confidence = 1.5
[input]
byts = 784
layer = "l5"
dtype = "unit8"
scale = "big"
shape = [784, 0]
padding = 256
fragments = "no"
)");
  const std::string file = (folder_.path() / "card.toml").string();
  for (const char* const expected :
       {":1:8: 'name' is a text", ":2:1: the card has no 'versoin'; did you mean 'version'?",
        ": 'version' is missing", ":3:16: the label 'a' stands twice",
        ":3:21: a label is a text that is not empty", ":4:18: 'min_confidence' is a probability",
        ":6:1: [input] has no 'byts'; did you mean 'bytes'?", ": 'bytes' is missing",
        ":7:9: 'layer' is one of l7, l4, l2",
        ":8:9: 'dtype' is one of uint8, float32; did you "
        "mean 'uint8'?",
        ":9:9: 'scale' is a number", ":10:15: a dimension is an integer",
        ":11:11: 'padding' is an integer from 0 to 255", ":12:13: 'fragments' is true or false"}) {
    EXPECT_THAT(text, HasSubstr(expected));
  }
  // Fourteen mistakes, a line each, and each line begins with the file.
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 13) << text;
  std::size_t begins = 0;
  for (std::size_t at = text.find(file); at != std::string::npos; at = text.find(file, at + 1)) {
    ++begins;
  }
  EXPECT_EQ(begins, 14U) << text;
}

TEST_F(CardReaderTest, OutputAndChecksumAreRead) {
  CardText card;
  card.more = "output = \"probabilitis\"\nsha256 = \"9cda\"";
  EXPECT_THAT(errors(card.text()),
              AllOf(HasSubstr(":5:10: 'output' is one of logits, probabilities; did you mean "
                              "'probabilities'?"),
                    HasSubstr(":6:10: 'sha256' is the checksum of the model's file, 64")));
  card.more = "";
  EXPECT_FALSE(read(card.text()).probabilities);
  EXPECT_EQ(read(card.text()).sha256, "");
}

TEST_F(CardReaderTest, NeedsLabels) {
  CardText card;
  card.labels = "[]";
  EXPECT_THAT(errors(card.text()), HasSubstr(":4:10: 'labels' must list"));
  card.labels = R"(["a", 2])";
  EXPECT_THAT(errors(card.text()), HasSubstr(":4:16: a label is a text"));
  card.labels = R"("a")";
  EXPECT_THAT(errors(card.text()), HasSubstr(":4:10: 'labels' must list"));
}

TEST_F(CardReaderTest, NeedsTheInputSection) {
  EXPECT_THAT(errors("name = \"a\"\nversion = \"1\"\nlabels = [\"a\"]\n"),
              HasSubstr("the section [input] is missing"));
}

TEST_F(CardReaderTest, ShapeMustHoldTheBytes) {
  CardText card;
  card.shape = "[2, 3]";
  EXPECT_THAT(errors(card.text()), HasSubstr("'shape' has 6 elements, but 'bytes' is 8"));
  // A product that does not fit into 64 bits is not computed.
  card.shape = "[4294967296, 4294967296, 8]";
  EXPECT_THAT(errors(card.text()), HasSubstr("'shape' has more than 1048576 elements"));
  card.shape = "[8.0]";
  EXPECT_THAT(errors(card.text()), HasSubstr("a dimension is an integer"));
}

TEST_F(CardReaderTest, NumbersAreNumbers) {
  CardText card;
  card.more = "min_confidence = nan";
  EXPECT_THAT(errors(card.text()), HasSubstr(":5:18: 'min_confidence' is a probability"));
  card.more = "";
  card.dtype = R"("float32")";
  for (const char* const scale : {"scale = nan", "scale = inf", "scale = 0", "scale = 1e300"}) {
    card.input_more = scale;
    EXPECT_THAT(errors(card.text()), HasSubstr("'scale' is a finite number")) << scale;
  }
}

TEST_F(CardReaderTest, ScaleIsForFloats) {
  CardText card;
  card.input_more = "scale = 0.5";
  EXPECT_THAT(errors(card.text()), HasSubstr("'scale' is only for the dtype float32"));
  card.input_more = "scale = 1.0";
  EXPECT_EQ(errors(card.text()), "no error");
}

TEST_F(CardReaderTest, WhatIsNoTomlIsToldAlone) {
  EXPECT_THAT(errors("name = \"a\"\nversion == 1\n"),
              AllOf(HasSubstr("card.toml:2:"), Not(HasSubstr("missing"))));
}

TEST_F(CardReaderTest, MissingCard) {
  try {
    (void)read_card(folder_.path() / "none.toml");
    FAIL() << "a card that does not exist was read";
  } catch (const std::runtime_error& error) {
    EXPECT_THAT(error.what(), HasSubstr("none.toml"));
  }
}

}  // namespace
}  // namespace millrace
