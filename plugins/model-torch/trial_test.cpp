// What is found at the start: damaged files, files of another kind, models with something wrong.

#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model_file.h"
#include "patience.h"
#include "tests/fixture.h"
#include "tests/model_fixture.h"

namespace millrace {
namespace {

using namespace model_torch_test;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class TrialTest : public TorchModelTest {
 protected:
  [[nodiscard]] std::string warnings() const {
    std::string all;
    for (const auto& [level, message] : context_.messages()) {
      if (level == LogLevel::warning) all += message + "\n";
    }
    return all;
  }
  static CardText probabilities() {
    CardText card;
    card.more = R"(output = "probabilities")";
    return card;
  }
  static std::string checksum_of(const std::string& model) {
    return read_model_file(folder_->path() / (model + ".pt")).sha256;
  }
};

TEST_F(TrialTest, SoftmaxInTheModelIsProbabilities) {
  EXPECT_THAT(refusal(with_card("softmax")),
              AllOf(HasSubstr("there is a softmax in the model"),
                    HasSubstr("output = \"probabilities\""), Not(HasSubstr("\n"))));
  const Batch<Verdict> verdicts =
      run(with_card("softmax", probabilities()), sessions_of({{0}, {1}, {2}}));
  for (const Verdict& verdict : verdicts.items) EXPECT_EQ(verdict.confidence, 1.0F);
  EXPECT_EQ(verdicts.items[2].label, "two");
}

TEST_F(TrialTest, LogarithmsOfProbabilitiesAreLogits) {
  EXPECT_EQ(run(with_card("log-softmax"), sessions_of({{1}})).items[0].confidence, 1.0F);
  EXPECT_THAT(warnings(), Not(HasSubstr("probabilities")));
  EXPECT_THAT(refusal(with_card("log-softmax", probabilities())),
              HasSubstr("these are logarithms of probabilities"));
}

TEST_F(TrialTest, LogitsAreNoProbabilities) {
  EXPECT_THAT(
      refusal(with_card("known", probabilities())),
      AllOf(HasSubstr("the card says output = \"probabilities\""), HasSubstr("make 1 together")));
}

TEST_F(TrialTest, SigmoidIsWarnedOf) {
  EXPECT_EQ(refusal(with_card("sigmoid")), "opened");
  EXPECT_THAT(warnings(), AllOf(HasSubstr("as of a sigmoid"), HasSubstr("above 0.576")));
}

TEST_F(TrialTest, AnswersThatDependOnMoreThanTheSession) {
  for (const std::uint32_t batch : {1U, 7U, 64U}) {
    auto options = with_card("traced-dropout");
    options.batch = batch;
    EXPECT_THAT(refusal(options), AllOf(HasSubstr("another answer each time"), HasSubstr("dropout"),
                                        HasSubstr("model.eval()")))
        << batch;
  }
  EXPECT_THAT(refusal(with_card("counts")), HasSubstr("another answer each time"));
  EXPECT_THAT(refusal(with_card("traced-batch-norm")),
              AllOf(HasSubstr("depends on the other sessions of the batch"),
                    HasSubstr("batch norm"), HasSubstr("model.eval()")));
}

TEST_F(TrialTest, ModelsThatAreRightAreTaken) {
  for (const char* const model : {"known", "infinite", "overwrites", "dropout"}) {
    for (const std::uint32_t batch : {1U, 7U, 64U}) {
      auto options = with_card(model);
      options.batch = batch;
      EXPECT_EQ(refusal(options), "opened") << model << ", " << batch;
    }
  }
  EXPECT_EQ(refusal(with_card("linear", card784())), "opened");
  EXPECT_EQ(refusal(with_card("lenet", card_float())), "opened");
}

TEST_F(TrialTest, NoNumbers) {
  EXPECT_THAT(refusal(with_card("nothing")),
              HasSubstr("gives no number (NaN or infinity) for any"));
}

TEST_F(TrialTest, SeveralOutputsAreCounted) {
  EXPECT_THAT(refusal(with_card("pair")), HasSubstr("does not give a tensor but a tuple of 2"));
}

TEST_F(TrialTest, HalfPrecisionIsNamed) {
  EXPECT_THAT(refusal(with_card("half")),
              AllOf(HasSubstr("its weights are Half"), HasSubstr("model.float()")));
}

TEST_F(TrialTest, FilesOfAnotherKindAreNamed) {
  using namespace std::string_literals;
  (void)folder_->write("onnx.pt", "\x08\x07\x12\x07pytorch"s + std::string(100, 'x'));
  (void)folder_->write("keras.pt", "\x89HDF\r\n\x1a\n"s + std::string(100, 'x'));
  (void)folder_->write("weights.pt", "\x40\0\0\0\0\0\0\0{\"a\":1}"s + std::string(100, ' '));
  const std::vector<std::pair<std::string, std::string>> kinds = {
      {"state-dict", "a state_dict"},
      {"module", "a module as a pickle"},
      {"old-pickle", "before PyTorch 1.6"},
      {"exported", "torch.export.save"},
      {"onnx", "an ONNX file"},
      {"keras", "Keras"},
      {"weights", "safetensors"}};
  for (const auto& [model, what] : kinds) {
    EXPECT_THAT(refusal(with_card(model)),
                AllOf(HasSubstr("is no TorchScript but"), HasSubstr(what),
                      HasSubstr("torch.jit.script(model.eval()).save(FILE)"),
                      HasSubstr("torch.jit.trace"), Not(HasSubstr("\n"))))
        << model;
  }
}

TEST_F(TrialTest, OperatorOfANewerPyTorchNamesBothVersions) {
  EXPECT_THAT(refusal(with_card("newer")),
              AllOf(HasSubstr("aten::scaled_dot_product_attention"),
                    HasSubstr("written by PyTorch 2.1 or newer (format version 3)"),
                    HasSubstr("needs PyTorch 2.0 or newer"), HasSubstr("libtorch here is 1.")));
}

TEST_F(TrialTest, DamageIsFoundWithoutAChecksumInTheCard) {
  const std::string good = read_bytes(folder_->path() / "linear.pt");
  // The weights are most of the file.
  for (std::size_t at = good.size() / 8; at + 16 < good.size(); at += good.size() / 16) {
    std::string bad = good;
    for (std::size_t i = at; i < at + 16; ++i) bad[i] = static_cast<char>(bad[i] ^ 0x55);
    (void)folder_->write("bad.pt", bad);
    EXPECT_THAT(refusal(with_card("bad", card784())), HasSubstr("it is damaged")) << at;
  }
}

TEST_F(TrialTest, ChecksumInTheCardIsCompared) {
  CardText card;
  card.more = "sha256 = \"" + checksum_of("known") + "\"";
  EXPECT_EQ(refusal(with_card("known", card)), "opened");
  EXPECT_EQ(warnings(), "");
  // A whole model, but another one.
  EXPECT_THAT(refusal(with_card("infinite", card)),
              AllOf(HasSubstr("not the file that its card"), HasSubstr(checksum_of("known")),
                    HasSubstr(checksum_of("infinite"))));
}

TEST_F(TrialTest, CardWithoutAChecksumIsWarnedOfOnceWithTheLine) {
  const TorchOptions options = with_card("known");
  ModelTorch one(options);
  ModelTorch two(options);  // another worker
  one.open(context_);
  two.open(context_);
  const std::string said = warnings();
  const std::string line = "add this line: sha256 = \"" + checksum_of("known") + "\"";
  EXPECT_THAT(said, AllOf(HasSubstr("known.toml"), HasSubstr(line)));
  EXPECT_EQ(said.find(line), said.rfind(line)) << said;
}

TEST(PatienceTest, SaysWhatTheStartWaitsForAgainAndAgain) {
  using namespace std::chrono_literals;
  testing::TestContext context;
  {
    const Patience patience(context, "the first answers of 'm.pt'", 1ms, 1ms);
    while (context.messages().size() < 2) std::this_thread::yield();
  }
  EXPECT_THAT(context.messages()[0].second,
              HasSubstr("still waiting for the first answers of 'm.pt'"));
  { const Patience quick(context, "nothing"); }
  EXPECT_THAT(context.messages().back().second, Not(HasSubstr("nothing")));
}

}  // namespace
}  // namespace millrace
