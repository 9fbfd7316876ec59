#include "model_torch.h"

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "millrace/testing.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr const char* kCard = R"(name = "small"
version = "3"
labels = ["a", "b", "c"]
min_confidence = 0.5
[input]
bytes = 4
layer = "l7"
dtype = "uint8"
shape = [4]
)";

/// Makes real TorchScript models with Debian's python3-torch.
class ModelTorchTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder() = fs::temp_directory_path() / ("model-torch-" + std::to_string(::getpid()));
    fs::create_directories(folder());
    std::ofstream(folder() / "make.py") << R"(
import sys, torch
class Sum(torch.nn.Module):  # logits: the first byte for class b, nothing for the others
    def forward(self, x):
        first = x[:, :1].float()
        return torch.cat((first * 0, first, first * 0), 1)
class Picture(torch.nn.Module):
    def forward(self, x):
        assert x.dtype == torch.float32
        first = x[:, 0, :1, 0] * 100
        return torch.cat((first * 0, first, first * 0), 1)
class Nan(torch.nn.Module):  # for sessions that begin with a byte 9
    def forward(self, x):
        logits = x[:, :3].float()
        return torch.where(x[:, :1] == 9, torch.full_like(logits, float('nan')), logits)
class Wrong(torch.nn.Module):
    def forward(self, x):
        return x.float().sum()
for name, module in (('sum', Sum()), ('picture', Picture()), ('nan', Nan()), ('wrong', Wrong())):
    torch.jit.script(module).save(sys.argv[1] + '/' + name + '.pt')
)";
    const std::string command = "/usr/bin/python3 " + (folder() / "make.py").string() + " " +
                                folder().string() + " 2>/dev/null";
    have_models() = std::system(command.c_str()) == 0;
  }
  static void TearDownTestSuite() { fs::remove_all(folder()); }
  static fs::path& folder() {
    static fs::path path;
    return path;
  }
  static bool& have_models() {
    static bool have = false;
    return have;
  }
  void SetUp() override {
    if (!have_models())
      GTEST_SKIP() << "python3-torch is not installed, so there are no models to try";
  }

  static void card(const std::string& model, const std::string& text = kCard) {
    std::ofstream(folder() / (model + ".toml")) << text;
  }
  static TorchOptions options(const std::string& model) {
    TorchOptions options;
    options.model = folder() / (model + ".pt");
    return options;
  }
  std::string open_error(const TorchOptions& options) {
    try {
      ModelTorch(options).open(context_);
    } catch (const ConfigError& error) {
      return error.option() + ": " + error.what();
    }
    return "it opened";
  }

  /// One session for each first byte; 0 stands for a session without payload.
  std::vector<Verdict> ask(const TorchOptions& options,
                           const std::vector<std::uint8_t>& first_bytes) {
    ModelTorch stage(options);
    stage.open(context_);
    std::vector<std::array<std::byte, 4>> bytes(first_bytes.size());
    std::vector<SessionPacket> packets(first_bytes.size());
    Batch<Session> batch;
    for (std::size_t i = 0; i < first_bytes.size(); ++i) {
      bytes[i] = {std::byte{first_bytes[i]}, std::byte{1}, std::byte{2}, std::byte{3}};
      packets[i].data = bytes[i].data();
      packets[i].size = first_bytes[i] == 0 ? 0 : 4;
      Session session;
      session.info.packets = static_cast<std::uint32_t>(i);
      session.packets = std::span(&packets[i], 1);
      batch.items.push_back(session);
    }
    recorder_.batches.clear();
    Output<Verdict> out(recorder_);
    stage.process(batch, out);
    return recorder_.items();
  }

  testing::TestContext context_;
  testing::Recorder<Verdict> recorder_;
};

TEST_F(ModelTorchTest, LabelsConfidencesAndUnknown) {
  card("sum");
  const auto verdicts = ask(options("sum"), {200, 0, 1});
  ASSERT_EQ(verdicts.size(), 3U);
  EXPECT_EQ(verdicts[0].label, "b");
  EXPECT_FLOAT_EQ(verdicts[0].confidence, 1);
  EXPECT_EQ(verdicts[0].model, "small");
  EXPECT_EQ(verdicts[0].model_version, "3");
  EXPECT_EQ(verdicts[1].label, "unknown");
  EXPECT_EQ(verdicts[1].label_index, -1);
  EXPECT_EQ(context_.counter("no-payload").value(), 1U);
  EXPECT_EQ(verdicts[2].session.packets, 2U);
  EXPECT_FLOAT_EQ(verdicts[2].confidence, std::exp(1.0F) / (2 + std::exp(1.0F)));
  EXPECT_EQ(verdicts[2].label, "b");
  TorchOptions strict = options("sum");
  strict.min_confidence = 0.6;
  EXPECT_EQ(ask(strict, {1})[0].label, "unknown");
  EXPECT_EQ(recorder_.items()[0].label_index, 1);
}

TEST_F(ModelTorchTest, ResultDoesNotDependOnTheBatch) {
  card("sum");
  std::vector<std::uint8_t> bytes(100);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::uint8_t>(i % 7);
  TorchOptions all = options("sum");
  all.probabilities = true;
  std::vector<std::vector<float>> results;
  for (const std::uint32_t batch : {1U, 7U, 64U}) {
    all.batch = batch;
    std::vector<float> values;
    for (const Verdict& verdict : ask(all, bytes)) {
      values.insert(values.end(), verdict.probabilities.begin(), verdict.probabilities.end());
    }
    results.push_back(values);
  }
  EXPECT_EQ(results[0].size(), 300U);
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
}

TEST_F(ModelTorchTest, ShippedModelDoesNotDependOnTheBatchInASingleBit) {
  const char* source = std::getenv("MILLRACE_SOURCE");
  TorchOptions shipped;
  shipped.model = fs::path(source != nullptr ? source : ".") / "models" / "ustc-tfc2016.pt";
  shipped.probabilities = true;
  std::vector<std::uint8_t> bytes(150);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::uint8_t>(i + 1);
  std::vector<std::vector<float>> results;
  for (const std::ptrdiff_t sessions : {150, 7, 1}) {
    std::vector<float> values;
    for (const Verdict& verdict : ask(shipped, {bytes.begin(), bytes.begin() + sessions})) {
      values.insert(values.end(), verdict.probabilities.begin(), verdict.probabilities.end());
    }
    ASSERT_EQ(values.size(), static_cast<std::size_t>(sessions) * 20);
    results.push_back(values);
  }
  EXPECT_TRUE(std::equal(results[1].begin(), results[1].end(), results[0].begin()));
  EXPECT_TRUE(std::equal(results[2].begin(), results[2].end(), results[0].begin()));
}

TEST_F(ModelTorchTest, FloatPicturesWithScale) {
  card("picture", R"(name = "p"
version = "1"
labels = ["a", "b", "c"]
[input]
bytes = 4
layer = "l7"
dtype = "float32"
scale = 0.5
shape = [1, 2, 2]
)");
  EXPECT_FLOAT_EQ(ask(options("picture"), {1})[0].confidence, 1);
}

TEST_F(ModelTorchTest, NotANumberIsUnknownAndCounted) {
  card("nan");
  EXPECT_EQ(ask(options("nan"), {9})[0].label, "unknown");
  EXPECT_EQ(context_.counter("not-a-number").value(), 1U);
}

TEST_F(ModelTorchTest, WhatDoesNotFitIsToldAtTheStart) {
  std::string two(kCard);
  two.replace(two.find(", \"c\""), 5, "");
  card("sum", two);
  EXPECT_THAT(open_error(options("sum")),
              HasSubstr("gives 3 classes, but its card names 2 labels"));
  card("wrong");
  EXPECT_THAT(open_error(options("wrong")), HasSubstr("expected [sessions, classes]"));
  card("picture");
  EXPECT_THAT(open_error(options("picture")),
              HasSubstr("does not take what its card says (uint8 [sessions, 4])"));
  std::ofstream(folder() / "damaged.pt") << "PK this is no model";
  card("damaged");
  EXPECT_THAT(open_error(options("damaged")),
              HasSubstr("damaged.pt' cannot be used: it is damaged"));
  fs::copy_file(folder() / "sum.pt", folder() / "bare.pt", fs::copy_options::overwrite_existing);
  EXPECT_THAT(open_error(options("bare")), HasSubstr("there is no card"));
  EXPECT_THAT(open_error(options("absent")), HasSubstr("model: there is no file"));
}

TEST_F(ModelTorchTest, SessionsThatKeepTooLittleAreAnError) {
  std::string l4(kCard);
  l4.replace(l4.find("l7"), 2, "l4");
  card("sum", l4);
  EXPECT_THROW(ask(options("sum"), {1}), std::runtime_error);
}

TEST(CardTest, AllMistakesInOneReport) {
  const fs::path file =
      fs::temp_directory_path() / ("card-" + std::to_string(::getpid()) + ".toml");
  std::ofstream(file) << R"(nmae = "x"
version = 3
labels = ["a", "a", ""]
min_confidence = 1.5
[input]
bytes = 784
layer = "l8"
dtype = "float"
shape = [28, 27]
padding = 300
fragmnts = true
)";
  std::string text;
  try {
    (void)read_card(file);
  } catch (const std::runtime_error& error) {
    text = error.what();
  }
  fs::remove(file);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n') + 1, 11) << text;
  EXPECT_THAT(
      text, AllOf(HasSubstr(".toml:1:1: the card has no 'nmae'; did you mean 'name'?"),
                  HasSubstr("'name' is missing"), HasSubstr("the label 'a' stands twice"),
                  HasSubstr("'layer' is one of l7, l4, l2\n"), HasSubstr("did you mean 'float32'?"),
                  HasSubstr("'shape' has 756 elements, but 'bytes' is 784"),
                  HasSubstr("did you mean 'fragments'?"), HasSubstr(".toml:10:")));
}

TEST(CardTest, ShippedCardIsRight) {
  const char* source = std::getenv("MILLRACE_SOURCE");
  const Card card =
      read_card(fs::path(source != nullptr ? source : ".") / "models" / "ustc-tfc2016.toml");
  EXPECT_EQ(card.labels.size(), 20U);
  EXPECT_EQ(card.features.min_payload, 2U);
  EXPECT_FALSE(card.features.fragments);
}

}  // namespace
}  // namespace millrace
