#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <map>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model_torch.h"
#include "tests/fixture.h"
#include "tests/model_fixture.h"

namespace millrace {
namespace {

using namespace model_torch_test;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::Recorder;
using ::testing::SizeIs;
using testing::TestContext;

class TorchStageTest : public TorchModelTest {};

TEST_F(TorchStageTest, LabelsSessions) {
  const auto options = with_card("known");
  Batch<Session> sessions = sessions_of({{2, 9}, {0, 1}, {1}});
  sessions.watermark = Timestamp(std::chrono::seconds(5));
  const Batch<Verdict> verdicts = run(options, std::move(sessions));
  ASSERT_THAT(verdicts.items, SizeIs(3));
  EXPECT_EQ(verdicts.watermark, Timestamp(std::chrono::seconds(5)));
  const std::array<std::string_view, 3> labels = {"two", "zero", "one"};
  const std::array<int, 3> indexes = {2, 0, 1};
  for (std::size_t i = 0; i < 3; ++i) {
    const Verdict& verdict = verdicts.items[i];
    EXPECT_EQ(verdict.session.packets, i + 1) << "order";
    EXPECT_EQ(verdict.label, labels[i]);
    EXPECT_EQ(verdict.label_index, indexes[i]);
    EXPECT_EQ(verdict.model, "tiny");
    EXPECT_EQ(verdict.model_version, "1");
    EXPECT_FLOAT_EQ(verdict.confidence, std::exp(10.0F) / (std::exp(10.0F) + 2));
    EXPECT_THAT(verdict.probabilities, IsEmpty());
    EXPECT_THAT(verdict.class_names, ElementsAre("zero", "one", "two"));
  }
}

TEST_F(TorchStageTest, GivesProbabilitiesIfAsked) {
  auto options = with_card("known");
  options.probabilities = true;
  options.batch = 2;  // the third session is in another run
  const Batch<Verdict> verdicts = run(options, sessions_of({{2}, {}, {1}}));
  ASSERT_THAT(verdicts.items, SizeIs(3));
  for (const Verdict& verdict : verdicts.items) {
    EXPECT_THAT(verdict.class_names, ElementsAre("zero", "one", "two"));
    EXPECT_THAT(verdict.probabilities, SizeIs(3));
  }
  EXPECT_FLOAT_EQ(verdicts.items[0].probabilities[2], verdicts.items[0].confidence);
  EXPECT_THAT(verdicts.items[1].probabilities, Each(0.0F));
  EXPECT_FLOAT_EQ(verdicts.items[2].probabilities[1], verdicts.items[2].confidence);
  const auto& p = verdicts.items[0].probabilities;
  EXPECT_FLOAT_EQ(p[0] + p[1] + p[2], 1.0F);
  EXPECT_EQ(verdicts.storage_bytes, 9 * sizeof(float));
}

TEST_F(TorchStageTest, BelowMinConfidenceIsUnknown) {
  CardText card;
  card.more = "min_confidence = 1.0";
  auto options = with_card("known", card);
  {
    const Batch<Verdict> verdicts = run(options, sessions_of({{2}}));
    EXPECT_EQ(verdicts.items[0].label, "unknown");
    EXPECT_EQ(verdicts.items[0].label_index, 2);
    EXPECT_GT(verdicts.items[0].confidence, 0.99F);
  }
  options.min_confidence = 0.5;  // the option has the last word
  EXPECT_EQ(run(options, sessions_of({{2}})).items[0].label, "two");
}

TEST_F(TorchStageTest, SessionsWithoutPayloadAreNotRun) {
  CardText card;
  card.input_more = "min_payload = 2";
  const Batch<Verdict> verdicts = run(with_card("known", card), sessions_of({{}, {1, 1}, {2}}));
  ASSERT_THAT(verdicts.items, SizeIs(3));
  for (const std::size_t i : {0U, 2U}) {
    EXPECT_EQ(verdicts.items[i].label, "unknown");
    EXPECT_EQ(verdicts.items[i].label_index, -1);
    EXPECT_EQ(verdicts.items[i].confidence, 0);
    EXPECT_EQ(verdicts.items[i].model, "tiny");
  }
  EXPECT_EQ(verdicts.items[1].label, "one");
  EXPECT_EQ(context_.counter("no-payload").value(), 2U);
  EXPECT_EQ(context_.counter("not-a-number").value(), 0U);
}

TEST_F(TorchStageTest, NotANumberIsUnknown) {
  auto options = with_card("known");
  options.probabilities = true;
  const Batch<Verdict> verdicts = run(options, sessions_of({{1}, {255}, {2}}));
  EXPECT_EQ(verdicts.items[0].label, "one");
  EXPECT_EQ(verdicts.items[1].label, "unknown");
  EXPECT_EQ(verdicts.items[1].label_index, -1);
  EXPECT_EQ(verdicts.items[1].confidence, 0);
  EXPECT_THAT(verdicts.items[1].probabilities, Each(0.0F));
  EXPECT_EQ(verdicts.items[2].label, "two");
  EXPECT_EQ(context_.counter("not-a-number").value(), 1U);
}

TEST_F(TorchStageTest, AnInfiniteLogitIsNoAnswerButMinusInfinityIs) {
  const Batch<Verdict> verdicts = run(with_card("infinite"), sessions_of({{9}, {1}}));
  EXPECT_EQ(verdicts.items[0].label, "one");
  EXPECT_GT(verdicts.items[0].confidence, 0.8F);
  EXPECT_EQ(verdicts.items[1].label, "unknown");
  EXPECT_EQ(context_.counter("not-a-number").value(), 1U);
}

TEST_F(TorchStageTest, ScalesAndShapesFloats) {
  CardText card;
  card.labels = many_labels(8);
  card.dtype = R"("float32")";
  card.shape = "[2, 4]";
  card.input_more = "scale = 0.5\npadding = 4";
  auto options = with_card("scaled", card);
  options.probabilities = true;
  const Batch<Verdict> verdicts = run(options, sessions_of({{2, 0}}));
  // The logits are the input: 1, 0, and six times the padding, 2.
  const float sum = std::exp(-1.0F) + std::exp(-2.0F) + 6;
  EXPECT_FLOAT_EQ(verdicts.items[0].probabilities[0], std::exp(-1.0F) / sum);
  EXPECT_FLOAT_EQ(verdicts.items[0].probabilities[1], std::exp(-2.0F) / sum);
  EXPECT_FLOAT_EQ(verdicts.items[0].probabilities[7], 1 / sum);
}

TEST_F(TorchStageTest, AModelMayWriteToItsInput) {
  auto options = with_card("overwrites");
  ModelTorch stage(options);
  stage.open(context_);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(run(stage, sessions_of({{1, 9, 2}})).items[0].label, "one");
}

TEST_F(TorchStageTest, AModelSavedInTrainingDoesNotDropOut) {
  auto options = with_card("dropout");
  options.probabilities = true;
  const Batch<Verdict> verdicts = run(options, sessions_of(std::vector<Bytes>(50, {1, 2, 3})));
  for (const Verdict& verdict : verdicts.items) {
    EXPECT_EQ(verdict.label, "two");
    EXPECT_EQ(verdict.confidence, verdicts.items[0].confidence);
  }
}

TEST_F(TorchStageTest, AnswersAsPythonDoes) {
  for (const std::string model : {"linear", "convolutions", "lenet"}) {
    auto options = with_card(model, model == "lenet" ? card_float() : card784());
    options.probabilities = true;
    const Batch<Verdict> verdicts = run(options, sessions_of(known_rows()));
    const std::string bytes = read_bytes(folder_->path() / (model + ".expected"));
    ASSERT_EQ(bytes.size(), 64 * 20 * sizeof(float));
    std::vector<float> expected(64 * 20);
    std::memcpy(expected.data(), bytes.data(), bytes.size());
    for (std::size_t i = 0; i < 64; ++i) {
      for (std::size_t k = 0; k < 20; ++k) {
        ASSERT_NEAR(verdicts.items[i].probabilities[k], expected[i * 20 + k], 1e-6F) << model;
      }
    }
  }
}

/// Probabilities of the same session. Where in the batch it is may change their last bits: which
/// ones depends on the processor, for which OpenBLAS has kernels of its own.
void expect_same_answer(const Verdict& a, const Verdict& b, const std::string& what) {
  EXPECT_EQ(a.label, b.label) << what;
  ASSERT_EQ(a.probabilities.size(), b.probabilities.size()) << what;
  for (std::size_t i = 0; i < a.probabilities.size(); ++i) {
    EXPECT_NEAR(a.probabilities[i], b.probabilities[i], 1e-6) << what << ", class " << i;
  }
}

/// In a run of a given number of rows an answer is the same to the last bit whatever is beside its
/// session, and the same but for rounding wherever in the batch it is.
TEST_F(TorchStageTest, ARowDoesNotDependOnTheOthers) {
  for (const std::string model : {"linear", "convolutions", "lenet"}) {
    auto options = with_card(model, model == "lenet" ? card_float() : card784());
    options.probabilities = true;
    for (const std::size_t size : {1U, 7U, 64U}) {
      options.batch = static_cast<std::uint32_t>(size);
      ModelTorch stage(options);
      stage.open(context_);
      std::vector<Bytes> rows = known_rows();
      rows.resize(size);
      const Batch<Verdict> before = run(stage, sessions_of(rows));
      for (std::size_t i = 0; i < size; ++i) {
        const std::string what = fmt::format("{}, {} rows, row {}", model, size, i);
        // Everything else is zeros.
        std::vector<Bytes> others(size, Bytes(784));
        others[i] = rows[i];
        const Batch<Verdict> alone = run(stage, sessions_of(others));
        ASSERT_EQ(std::memcmp(before.items[i].probabilities.data(),
                              alone.items[i].probabilities.data(), 20 * sizeof(float)),
                  0)
            << what;
        // And the session moves to another place.
        const std::size_t place = (i * 5 + 3) % size;
        others[i] = Bytes(784);
        others[place] = rows[i];
        const Batch<Verdict> moved = run(stage, sessions_of(others));
        expect_same_answer(before.items[i], moved.items[place], what);
      }
    }
  }
}

/// The model is always asked about as many rows, so a batch that is not full gives the same
/// answers.
TEST_F(TorchStageTest, BatchesThatAreNotFullGiveTheSameAnswers) {
  for (const std::string model : {"linear", "convolutions", "lenet"}) {
    auto options = with_card(model, model == "lenet" ? card_float() : card784());
    options.probabilities = true;
    ModelTorch stage(options);
    stage.open(context_);
    const std::vector<Bytes> rows = known_rows();
    const Batch<Verdict> whole = run(stage, sessions_of(rows));
    for (const std::size_t size : {1U, 7U}) {
      for (std::size_t begin = 0; begin + size <= rows.size(); begin += size) {
        const Batch<Verdict> part =
            run(stage, sessions_of({rows.begin() + static_cast<std::ptrdiff_t>(begin),
                                    rows.begin() + static_cast<std::ptrdiff_t>(begin + size)}));
        for (std::size_t i = 0; i < size; ++i) {
          expect_same_answer(part.items[i], whole.items[begin + i],
                             fmt::format("{}, row {} in a batch of {}", model, begin + i, size));
        }
      }
    }
  }
}

TEST_F(TorchStageTest, OneBatchOutForEveryBatchIn) {
  auto options = with_card("known");
  options.batch = 4;
  ModelTorch stage(options);
  stage.open(context_);
  EXPECT_EQ(stage.coalesce().items, 4U);
  EXPECT_EQ(stage.coalesce().max_wait, std::chrono::milliseconds(20));
  // Batches are never cut by the host: more than `batch` may come at once.
  const Batch<Verdict> verdicts =
      run(stage, sessions_of({{0}, {1}, {2}, {0}, {}, {1}, {2}, {0}, {1}, {2}}));
  std::vector<std::string_view> labels;
  for (const Verdict& verdict : verdicts.items) labels.push_back(verdict.label);
  EXPECT_THAT(labels, ElementsAre("zero", "one", "two", "zero", "unknown", "one", "two", "zero",
                                  "one", "two"));
}

TEST_F(TorchStageTest, NamesOfAgentsOutliveTheSessions) {
  std::string name = "the name of an agent";
  Batch<Session> sessions = sessions_of({{0}, {1}, {}});
  for (Session& session : sessions.items) session.info.agent = name;
  sessions.items[1].info.agent = {};
  const Batch<Verdict> verdicts = run(with_card("known"), std::move(sessions));
  name.assign(name.size(), 'x');
  EXPECT_EQ(verdicts.items[0].session.agent, "the name of an agent");
  EXPECT_EQ(verdicts.items[1].session.agent, "");
  EXPECT_EQ(verdicts.items[2].session.agent, "the name of an agent");
}

TEST_F(TorchStageTest, SessionsThatHoldTooLittle) {
  CardText card;
  card.layer = R"("l4")";
  ModelTorch stage(with_card("known", card));
  stage.open(context_);
  try {
    (void)run(stage, sessions_of({{1}}, Layer::l7));
    FAIL() << "sessions without transport headers were classified";
  } catch (const std::runtime_error& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("keep = \"l4\""), HasSubstr("from l7 on")));
  }
  EXPECT_EQ(run(stage, sessions_of({{1}}, Layer::l2)).items[0].label, "one");
}

/// The model that comes with Millrace, on real traffic of the malware Tinba.
TEST(ShippedModelTest, KnowsTinba) {
  const auto model = source_root() / "models/ustc-tfc2016.pt";
  if (!std::filesystem::exists(model)) GTEST_SKIP() << "there is no " << model;
  const char* shared = std::getenv("MILLRACE_SHARED");
  const auto capture =
      (shared != nullptr ? std::filesystem::path(shared) : source_root() / "../shared") /
      "datasets/ustc-tfc2016/Tinba.pcap";
  TestContext context;
  TorchOptions options;
  options.model = model.string();
  ModelTorch stage(options);
  stage.open(context);
  if (!std::filesystem::exists(capture)) GTEST_SKIP() << "there is no " << capture;

  // A classic capture file of this machine's byte order, in microseconds.
  const std::string file = read_bytes(capture);
  ASSERT_EQ(file.substr(0, 4), "\xd4\xc3\xb2\xa1");
  std::vector<Packet> packets;
  for (std::size_t at = 24; at + 16 <= file.size();) {
    std::array<std::uint32_t, 4> header{};
    std::memcpy(header.data(), file.data() + at, sizeof header);
    ASSERT_LE(at + 16 + header[2], file.size());
    Packet packet;
    packet.time = Timestamp(std::chrono::seconds(header[0]) + std::chrono::microseconds(header[1]));
    packet.data = reinterpret_cast<const std::byte*>(file.data() + at + 16);
    packet.captured = header[2];
    packet.length = header[3];
    packets.push_back(packet);
    at += 16 + header[2];
  }
  SessionTable table(SessionLimits{});
  SessionBatch batch;
  const auto emit = [&](const Session& session, std::uint64_t) { batch.add(session); };
  table.add(packets, 0, emit);
  table.flush(emit);
  Batch<Session> sessions = batch.take();
  const std::size_t count = sessions.items.size();
  ASSERT_GT(count, 100U);

  Recorder<Verdict> recorder;
  Output<Verdict> out(recorder);
  stage.process(sessions, out);
  std::map<std::string, std::size_t> labels;
  for (const Verdict& verdict : recorder.items()) ++labels[std::string(verdict.label)];
  const std::size_t asked = count - context.counter("no-payload").value();
  const std::size_t answered = count - labels["unknown"];
  // The card's calibration: at its min_confidence 99.8 % of the answers are right.
  EXPECT_GE(static_cast<double>(labels["Tinba"]), 0.99 * static_cast<double>(answered));
  EXPECT_GT(answered * 2, asked) << labels["unknown"] << " of " << count << " are unknown";
}

}  // namespace
}  // namespace millrace
