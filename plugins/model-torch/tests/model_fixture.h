#pragma once

#include <cstdlib>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "millrace/testing.h"

#include "model_torch.h"
#include "tests/fixture.h"

namespace millrace::model_torch_test {

/// The rows for which make_models.py wrote down Python's answers.
inline std::vector<Bytes> known_rows() {
  std::vector<Bytes> rows(64, Bytes(784));
  for (std::size_t i = 0; i < rows.size(); ++i) {
    for (std::size_t j = 0; j < 784; ++j) rows[i][j] = static_cast<std::uint8_t>(i * 7 + j * 13);
  }
  return rows;
}

/// Tests with the models of make_models.py.
class TorchModelTest : public ::testing::Test {
 protected:
  /// The models are made once for the program; without Python and its torch nothing can be tested.
  static void SetUpTestSuite() {
    if (folder_) return;
    folder_ = std::make_unique<TestFolder>();
    const auto script = source_root() / "plugins/model-torch/tests/make_models.py";
    // The sanitizers' libraries, if this is such a build, are not for Python.
    const std::string command = "env -u LD_PRELOAD /usr/bin/python3 '" + script.string() + "' '" +
                                folder_->path().string() + "' 2>'" +
                                (folder_->path() / "log").string() + "'";
    have_models_ = std::system(command.c_str()) == 0;
  }

  void SetUp() override {
    const std::string log = read_bytes(folder_->path() / "log");
    if (have_models_) return;
    // Models that cannot be made although torch is there are a failure, not a reason to skip.
    if (log.find("No module named 'torch'") == std::string::npos &&
        std::filesystem::exists("/usr/bin/python3")) {
      FAIL() << "make_models.py: " << log;
    }
    GTEST_SKIP() << "the test models need /usr/bin/python3 with torch (python3-torch)";
  }

  /// Options for a model, with a card beside it.
  static TorchOptions with_card(const std::string& model, const CardText& card = {}) {
    TorchOptions options;
    options.model = (folder_->path() / (model + ".pt")).string();
    (void)folder_->write(model + ".toml", card.text());
    return options;
  }
  static CardText card784() {
    CardText card;
    card.labels = many_labels(20);
    card.bytes = "784";
    card.shape = "[784]";
    return card;
  }
  static CardText card_float() {
    CardText card = card784();
    card.dtype = R"("float32")";
    card.shape = "[1, 28, 28]";
    card.input_more = "scale = 0.00392156862745098";
    return card;
  }

  /// What `open` has against the options: "option: message".
  std::string refusal(const TorchOptions& options) {
    try {
      ModelTorch stage(options);
      stage.open(context_);
    } catch (const ConfigError& error) {
      return error.option() + ": " + error.what();
    }
    return "opened";
  }

  /// Verdicts and their storage.
  Batch<Verdict> run(const TorchOptions& options, Batch<Session> sessions) {
    ModelTorch stage(options);
    stage.open(context_);
    return run(stage, std::move(sessions));
  }
  static Batch<Verdict> run(ModelTorch& stage, Batch<Session> sessions) {
    testing::Recorder<Verdict> recorder;
    Output<Verdict> out(recorder);
    stage.process(sessions, out);
    sessions = {};  // what the verdicts need they own
    if (recorder.batches.size() != 1) throw std::runtime_error("expected one batch");
    return std::move(recorder.batches.front());
  }

  static inline std::unique_ptr<TestFolder> folder_;
  static inline bool have_models_ = false;
  testing::TestContext context_;
};

}  // namespace millrace::model_torch_test
