#include "model_fixture.h"
#include "support/http_certificates.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

TEST_F(ModelHttpTest, LabelsSessions) {
  serve();
  start();
  Batch<Session> sessions = sessions_of({{2, 7}, {0, 1}, {}, {1}});
  sessions.watermark = Timestamp(5s);
  const std::vector<Verdict> verdicts = ask(sessions);
  EXPECT_THAT(labels(), ElementsAre("two", "zero", "unknown", "one"));
  ASSERT_THAT(recorder_.batches, SizeIs(1));
  EXPECT_EQ(recorder_.batches[0].watermark, Timestamp(5s));
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(verdicts[i].session.packets, i + 1) << "order";
    EXPECT_EQ(verdicts[i].model, "tiny");
    EXPECT_EQ(verdicts[i].model_version, "1");
    EXPECT_THAT(verdicts[i].probabilities, IsEmpty());
  }
  EXPECT_FLOAT_EQ(verdicts[0].confidence, 0.9F);
  EXPECT_EQ(verdicts[0].label_index, 2);
  EXPECT_EQ(verdicts[2].label_index, -1);
  EXPECT_EQ(context_.counter("no-payload").value(), 1U);
}

TEST_F(ModelHttpTest, ARequestIsWhatTheReadmeSays) {
  CardText card;
  card.input_more = "padding = 4";
  write_card(card);
  serve();
  options_.token = "secret";
  start();
  Batch<Session> sessions = sessions_of({{2, 0xFF}});
  sessions.items[0].info.id = {0xAB, 0xCD};
  (void)ask(sessions);
  const Request request = server_->taken().back();
  EXPECT_EQ(request.target, "/v1/verdicts");
  EXPECT_EQ(request.authorization, "Bearer secret");
  EXPECT_EQ(Json::parse(request.body),
            Json::parse(R"({"model": "tiny", "version": "1", "sessions": [
              {"session": "abcd0000000000000000000000000000", "features": "Av8EBAQEBAQ="}]})"));
  EXPECT_TRUE(logged("without TLS the bearer token can be read"));
}

TEST_F(ModelHttpTest, RequestsHoldWhatBatchSays) {
  serve();
  options_.batch = 1;
  start();
  (void)ask({{0}, {}, {1}, {2}});
  EXPECT_THAT(labels(), ElementsAre("zero", "unknown", "one", "two"));
  EXPECT_THAT(sizes(), ElementsAre(1, 1, 1));
  EXPECT_EQ(stage_->coalesce().items, 1U);
  options_.batch = 3;
  serve();
  start();
  (void)ask(std::vector<Bytes>(7, {1}));
  EXPECT_THAT(labels(), AllOf(SizeIs(7), Each("one")));
  EXPECT_THAT(sizes(), ElementsAre(3, 3, 1));
}

TEST_F(ModelHttpTest, SessionsWithoutPayloadAreNotAskedAbout) {
  serve();
  start();
  (void)ask({{}, {}});
  EXPECT_THAT(labels(), ElementsAre("unknown", "unknown"));
  Batch<Session> empty;
  (void)ask(empty);
  EXPECT_THAT(recorder_.batches, IsEmpty());
  EXPECT_THAT(sizes(), IsEmpty());
}

TEST_F(ModelHttpTest, AllFormsOfAnAnswer) {
  serve(first({good()}, says(R"({"took": 3, "verdicts": [
      {"label": "two", "confidence": 0.75},
      {"logits": [1, 3, -2.5]},
      {"probabilities": [0.25, 0.25, 0.5], "node": "a"},
      null]})")));
  start();
  const std::vector<Verdict> verdicts = ask({{0}, {0}, {0}, {0}});
  EXPECT_THAT(labels(), ElementsAre("two", "one", "two", "unknown"));
  EXPECT_FLOAT_EQ(verdicts[0].confidence, 0.75F);
  EXPECT_FLOAT_EQ(verdicts[1].confidence, 1 / (std::exp(-2.0F) + 1 + std::exp(-5.5F)));
  EXPECT_FLOAT_EQ(verdicts[2].confidence, 0.5F);
  EXPECT_EQ(verdicts[3].label_index, -1);
  EXPECT_EQ(context_.counter("not-a-number").value(), 1U);
}

TEST_F(ModelHttpTest, GivesProbabilitiesIfAsked) {
  options_.probabilities = true;
  options_.batch = 2;
  serve();
  start();
  const std::vector<Verdict> verdicts = ask({{2}, {}, {1}, {9}});
  ASSERT_THAT(verdicts, SizeIs(4));
  for (const Verdict& verdict : verdicts) {
    EXPECT_THAT(verdict.class_names, ElementsAre("zero", "one", "two"));
    EXPECT_THAT(verdict.probabilities, SizeIs(3));
  }
  EXPECT_THAT(verdicts[0].probabilities, ElementsAre(0.05F, 0.05F, 0.9F));
  EXPECT_THAT(verdicts[1].probabilities, Each(0.0F));
  EXPECT_THAT(verdicts[2].probabilities, ElementsAre(0.05F, 0.9F, 0.05F));
  EXPECT_THAT(verdicts[3].probabilities, Each(0.0F));
}

TEST_F(ModelHttpTest, BelowMinConfidenceIsUnknown) {
  CardText card;
  card.more = "min_confidence = 0.95";
  write_card(card);
  serve();
  start();
  const std::vector<Verdict> verdicts = ask({{1}});
  EXPECT_EQ(verdicts[0].label, "unknown");
  EXPECT_EQ(verdicts[0].label_index, 1);
  EXPECT_FLOAT_EQ(verdicts[0].confidence, 0.9F);
  options_.min_confidence = 0.5;  // the option has the last word
  start();
  EXPECT_EQ(ask({{1}})[0].label, "one");
}

TEST_F(ModelHttpTest, SessionsThatHoldTooLittle) {
  CardText card;
  card.layer = R"("l4")";
  write_card(card);
  serve();
  start();
  EXPECT_THAT(outcome({{1}}), AllOf(HasSubstr("error: "), HasSubstr("keep = \"l4\"")));
}

class ModelTlsTest : public ModelHttpTest {
 protected:
  void SetUp() override {
    if (!certificates_.possible()) GTEST_SKIP() << "needs openssl";
    ASSERT_TRUE(certificates_.make("authority", "") && certificates_.make("stranger", "") &&
                certificates_.make("server", "authority") && certificates_.make("me", "authority"));
    certificates_.use(tls_, "server", "authority");
    server_ = std::make_unique<TestServer>([](const Request&) { return good(); }, std::uint16_t{0},
                                           &tls_);
    options_.url = server_->url();
    options_.certificate = certificates_.path("me.pem");
    options_.key = certificates_.path("me.key");
  }

  TestCertificates certificates_{folder_.path()};
  boost::asio::ssl::context tls_{boost::asio::ssl::context::tls_server};
};

TEST_F(ModelTlsTest, WithAClientCertificate) {
  options_.ca = certificates_.path("authority.pem");
  start();
  (void)ask({{1}, {2}});
  EXPECT_THAT(labels(), ElementsAre("one", "two"));
}

TEST_F(ModelTlsTest, AServiceThatIsNotTrustedIsToldAtTheStart) {
  options_.ca = certificates_.path("stranger.pem");
  EXPECT_THAT(refusal(), AllOf(HasSubstr("url: "), HasSubstr("certificate")));
  options_.ca = "";
  EXPECT_THAT(refusal(), AllOf(HasSubstr("url: "), HasSubstr("certificate")));
  EXPECT_THAT(server_->heads(), IsEmpty());
}

}  // namespace
}  // namespace millrace
