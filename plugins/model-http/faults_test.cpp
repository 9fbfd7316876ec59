#include "model_fixture.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;

class ModelFaultsTest : public ModelHttpTest {
 protected:
  /// A service that is well at the start, and then gives `replies` and is well again.
  void start_well_then(std::vector<Reply> replies) {
    replies.insert(replies.begin(), good());
    serve(first(std::move(replies), good()));
    start();
  }
};

TEST_F(ModelFaultsTest, WhatPassesIsTriedAgain) {
  using How = Reply::How;
  start_well_then({{500, "out of memory"}, {503}, {502}, {408}, {.how = How::cut}});
  EXPECT_THAT(outcome({{1}, {}}), AllOf(StartsWith("transient: "),
                                        HasSubstr("/v1/verdicts answered 500: out of memory")));
  EXPECT_EQ(context_.counter("no-payload").value(), 0U) << "counted when the batch is done";
  EXPECT_GE(ask_until_answered({{1}, {}}), 3);
  EXPECT_THAT(labels(), ElementsAre("one", "unknown"));
  EXPECT_EQ(context_.counter("no-payload").value(), 1U);
}

TEST_F(ModelFaultsTest, NothingIsGivenOnBeforeAllIsAnswered) {
  options_.batch = 1;
  start_well_then({good(), {503}});
  EXPECT_THAT(outcome({{1}, {2}}), StartsWith("transient: "));
  EXPECT_THAT(recorder_.batches, IsEmpty());
  EXPECT_EQ(ask_until_answered({{1}, {2}}), 0);
  EXPECT_THAT(labels(), ElementsAre("one", "two"));
}

TEST_F(ModelFaultsTest, AServiceThatIsAwayIsWaitedFor) {
  serve();
  server_.reset();
  start();
  EXPECT_TRUE(logged("Failed to connect"));
  for (int i = 0; i < 3; ++i) EXPECT_THAT(outcome({{1}}), StartsWith("transient: "));
  serve();
  (void)ask_until_answered({{2}});
  EXPECT_THAT(labels(), ElementsAre("two"));
  server_.reset();
  EXPECT_THAT(outcome({{1}}), StartsWith("transient: "));
  serve();
  (void)ask_until_answered({{0}});
  EXPECT_THAT(labels(), ElementsAre("zero"));
}

TEST_F(ModelFaultsTest, AServiceThatHangsIsGivenUp) {
  options_.answer_timeout = 200ms;
  start_well_then({{.how = Reply::How::hang}});
  EXPECT_THAT(outcome({{1}}), AllOf(StartsWith("transient: "), HasSubstr("timed out")));
  (void)ask_until_answered({{1}});
  EXPECT_THAT(labels(), ElementsAre("one"));
}

TEST_F(ModelFaultsTest, RetryAfterIsHonoured) {
  start_well_then({{429, "slower", {{"Retry-After", "20"}}}});
  EXPECT_THAT(outcome({{1}}), HasSubstr("answered 429: slower"));
  for (const auto by : {0s, 10s, 9s}) {
    context_.manual_clock.advance(by);
    EXPECT_THAT(outcome({{1}}), AllOf(StartsWith("transient: "), HasSubstr("asked to wait")));
  }
  EXPECT_THAT(server_->heads(), SizeIs(2)) << "it is left alone";
  context_.manual_clock.advance(1s);
  EXPECT_EQ(outcome({{1}}), "answered");
}

TEST_F(ModelFaultsTest, RetryAfterIsBounded) {
  options_.retry_after_max = 3s;
  start_well_then({{503, "", {{"Retry-After", "100000"}}}});
  EXPECT_THAT(outcome({{1}}), StartsWith("transient: "));
  EXPECT_THAT(outcome({{1}}), HasSubstr("to wait for 3.0 s"));
  context_.manual_clock.advance(3s);
  EXPECT_EQ(outcome({{1}}), "answered");
}

TEST_F(ModelFaultsTest, WhatTheServiceDoesNotTakeIsRejectedAlone) {
  serve([](const Request&) { return good(); });
  start();
  // The rule does not know the body yet, so the sessions are told apart by the requests' order.
  server_->rule(first(
      {{400, "no such session"}, good(), {422, "the bytes are bad"}, {400}, {413, "too large"}},
      good()));
  const std::vector<Bytes> sessions = {{0}, {}, {1}, {2}, {1}};
  // All four are asked about at once, then two and two, and of the last two each alone.
  EXPECT_THAT(outcome(sessions), AllOf(StartsWith("rejected [3,4]: "), HasSubstr("answered 400")));
  EXPECT_THAT(recorder_.batches, IsEmpty());
  EXPECT_EQ(outcome({{0}, {}, {1}}), "answered");
  EXPECT_THAT(labels(), ElementsAre("zero", "unknown", "one"));
}

TEST_F(ModelFaultsTest, ARejectedBatchSaysWhy) {
  options_.batch = 1;
  start_well_then({good(), {400, "the first\nreason"}, {422, "another"}});
  EXPECT_THAT(outcome({{0}, {1}, {2}}),
              AllOf(StartsWith("rejected [1,2]: "), HasSubstr("answered 400: the first reason")));
}

TEST_F(ModelFaultsTest, AWrongTokenLosesNothingAndIsRepairedOnTheWay) {
  const auto rule = [](const Request& head) {
    return head.authorization == "Bearer right" ? good() : Reply{401, "a token, please"};
  };
  serve(rule);
  options_.token_file = folder_.write("token", "wrong\n").string();
  EXPECT_THAT(refusal(), AllOf(HasSubstr("url: "), HasSubstr("answered 401: a token, please")));
  (void)folder_.write("token", "right\n");
  start();
  server_->rule([](const Request&) { return Reply{401}; });
  EXPECT_THAT(outcome({{1}}), AllOf(StartsWith("transient: "), Not(HasSubstr("right"))));
  server_->rule(rule);
  EXPECT_EQ(ask_until_answered({{1}}), 0);
}

TEST_F(ModelFaultsTest, ARedirectionIsNotFollowed) {
  TestServer other([](const Request&) { return good(); });
  start_well_then({{307, "", {{"Location", other.url()}}}});
  EXPECT_THAT(outcome({{1}}), StartsWith("transient: "));
  EXPECT_THAT(other.heads(), IsEmpty());
}

TEST_F(ModelFaultsTest, AnswersThatAreNotWhatWasAskedForAreErrors) {
  const std::string verdict = R"({"label": "one", "confidence": 1})";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"<html>", "is no JSON"},
      {"", "is no JSON"},
      {R"({"verdicts": []})", "has 0 verdicts; expected 2"},
      {R"({"verdicts": [)" + verdict + "]}", "has 1 verdicts; expected 2"},
      {R"({"verdicts": [)" + verdict + "," + verdict + "," + verdict + "]}",
       "has 3 verdicts; expected 2"},
      {R"({"verdicts": [)" + verdict + R"(, {"label": "tow", "confidence": 1}]})",
       R"(verdicts[1].label is "tow"; expected a label of the card; did you mean 'two'?)"},
  };
  for (const auto& [body, expected] : cases) {
    start_well_then({says(body)});
    EXPECT_THAT(outcome({{1}, {2}}),
                AllOf(StartsWith("error: " + server_->url()), HasSubstr(expected)))
        << body;
    EXPECT_THAT(recorder_.batches, IsEmpty());
  }
}

TEST_F(ModelFaultsTest, AHugeAnswerIsNotRead) {
  options_.answer_bytes = 64_KiB;
  start_well_then({says(std::string(2 << 20, ' ')),
                   {500, std::string(60 << 10, 'x')},
                   {500, std::string(2 << 20, 'x')}});
  EXPECT_THAT(outcome({{1}}), AllOf(StartsWith("error: "), HasSubstr("longer than 65536 bytes"),
                                    HasSubstr("'answer_bytes'")));
  for (int i = 0; i < 2; ++i) {
    const std::string what = outcome({{1}});
    EXPECT_THAT(what, StartsWith("transient: "));
    EXPECT_LT(what.size(), 5000U);
  }
  EXPECT_EQ(outcome({{1}}), "answered");
}

TEST_F(ModelFaultsTest, AServiceThatDoesNotFitIsToldAtTheStart) {
  serve([](const Request&) { return Reply{404, "no such page"}; });
  EXPECT_THAT(refusal(), AllOf(HasSubstr("url: "), HasSubstr("answered 404: no such page")));
  server_->rule([](const Request&) { return says(R"({"verdicts": [{"logits": [1, 2]}]})"); });
  EXPECT_THAT(refusal(), AllOf(HasSubstr("url: http"), HasSubstr("list of 3 numbers")));
  server_->rule([](const Request&) { return Reply{503, "warming up"}; });
  EXPECT_EQ(refusal(), "opened");
  EXPECT_TRUE(logged("answered 503: warming up"));
}

}  // namespace
}  // namespace millrace
