#include <ctime>

#include "upload_fixture.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using SteadyClock = std::chrono::steady_clock;

TEST_F(UploadTest, WhatPassesIsTriedAgainUnderTheSameName) {
  using How = Reply::How;
  serve(first(
      {{503}, {429}, {500}, {502}, {408}, {.how = How::cut}, {503, "", {}, How::before_body}}));
  start();
  write(5000);  // large enough to be cut in the middle
  finish();
  const std::vector<Request> heads = server_->heads();
  ASSERT_THAT(heads, SizeIs(8));
  for (const Request& head : heads) EXPECT_EQ(head.chunk, heads[0].chunk);
  EXPECT_EQ(numbers_in(server_->taken()), from_to(0, 5000));
  // A request that ends without an answer on a kept connection is repeated by libcurl at once,
  // unless it was still being sent.
  const std::uint64_t retried = count("retried");
  EXPECT_THAT(retried, AnyOf(6U, 7U));
  EXPECT_EQ(count("uploaded"), 1U);
  EXPECT_EQ(context_->failing("server"), "");
  EXPECT_THAT(context_->all_dropped(), IsEmpty());
}

TEST_F(UploadTest, AServerThatSaysNothingIsGivenUp) {
  serve(first({{.how = Reply::How::hang}, {.how = Reply::How::hang}, {.how = Reply::How::hang}}));
  options_.chunk_age = 0ns;
  options_.answer_timeout = 100ms;
  start();
  write(10);
  EXPECT_TRUE(eventually(
      [&] { return context_->failing("server").find("'answer_timeout'") != std::string::npos; }));
  finish();
  EXPECT_EQ(numbers_in(server_->taken()), from_to(0, 10));
}

TEST_F(UploadTest, AnAnswerThatNeverEndsIsBrokenOff) {
  serve(first({{503, std::string(2 << 20, 'x')}}));
  start();
  write(10);
  finish();
  EXPECT_EQ(numbers_in(server_->taken()), from_to(0, 10));
  for (const auto& [level, message] : context_->messages()) EXPECT_LT(message.size(), 5000U);
}

TEST_F(UploadTest, AServerThatIsAwayIsWaitedFor) {
  no_server();
  start();
  write(10);
  tick(1h);
  EXPECT_TRUE(eventually([&] { return count("retried") >= 3; }));
  serve();
  finish();
  EXPECT_EQ(numbers_in(server_->taken()), from_to(0, 10));
}

TEST_F(UploadTest, RetryAfterIsHonoured) {
  for (const bool date : {false, true}) {
    std::string value = "2";
    if (date) {
      const std::time_t then = std::time(nullptr) + 3;
      std::array<char, 64> text{};
      std::tm parts{};
      std::strftime(text.data(), text.size(), "%a, %d %b %Y %H:%M:%S GMT",
                    ::gmtime_r(&then, &parts));
      value = text.data();
    }
    serve(first({{503, "", {{"Retry-After", value}}}}));
    start();
    const auto before = SteadyClock::now();
    write(10);
    finish();  // the end is no reason to come earlier
    EXPECT_GE(SteadyClock::now() - before, 1500ms) << value;
    EXPECT_EQ(server_->heads().size(), 2U);
    server_.reset();
  }
}

TEST_F(UploadTest, RetryAfterIsBounded) {
  serve(first({{503, "", {{"Retry-After", "100000"}}}}));
  options_.retry_after_max = 10ms;
  start();
  write(10);
  finish();
  EXPECT_EQ(server_->taken().size(), 1U);
}

TEST_F(UploadTest, RejectedChunksAreSetAsideWithTheServersReason) {
  serve(first({{400, R"({"error":"no capture"})"}, {413, "too large\n\n"}}));
  options_.chunk_age = 0ns;
  start();
  for (int i = 0; i < 3; ++i) write(10);
  finish();
  EXPECT_EQ(numbers_in(server_->taken()), from_to(20, 30));
  EXPECT_THAT(files(), IsEmpty());
  const std::vector<std::string> aside = files("rejected");
  ASSERT_THAT(aside, ElementsAre(EndsWith("-10.pcap.zst"), EndsWith("-10.pcap.zst.reason"),
                                 EndsWith("-10.pcap.zst"), EndsWith("-10.pcap.zst.reason")));
  const fs::path folder = fs::path(options_.spool) / "rejected";
  EXPECT_EQ(numbers_in(content(folder / aside[0])), from_to(0, 10));
  EXPECT_THAT(content(folder / aside[1]),
              AllOf(HasSubstr("answered 400"), HasSubstr(R"({"error":"no capture"})")));
  EXPECT_THAT(content(folder / aside[3]), EndsWith("answered 413: too large\n"));
  EXPECT_EQ(count("rejected"), 2U);
  EXPECT_EQ(context_->dropped_for("rejected-by-server"), 20U);
  EXPECT_EQ(context_->handled_items(), 10U);
  EXPECT_EQ(receipts_.done(), 3);
}

TEST_F(UploadTest, RejectedChunksAreKeptWithinABound) {
  serve([](const Request&) { return Reply{400, "no"}; });
  options_.chunk_age = 0ns;
  options_.keep_rejected = 40_KiB;  // five times a block for the chunk and one for the reason
  start();
  for (int i = 0; i < 10; ++i) write(10);
  finish();
  const std::vector<std::string> aside = files("rejected");
  ASSERT_THAT(aside, SizeIs(10));
  const fs::path folder = fs::path(options_.spool) / "rejected";
  EXPECT_EQ(numbers_in(content(folder / aside[8])), from_to(90, 100)) << "the latest stay";
  EXPECT_EQ(count("rejected"), 10U);
}

TEST_F(UploadTest, AWrongTokenLosesNothingAndIsRepairedOnTheWay) {
  serve([](const Request& head) {
    return head.authorization == "Bearer right" ? Reply{} : Reply{401, R"({"error":"a token"})"};
  });
  std::ofstream(folder_ / "token") << "wrong\n";
  options_.token_file = folder_ / "token";
  options_.chunk_age = 0ns;
  start();
  for (int i = 0; i < 3; ++i) write(10);
  EXPECT_TRUE(eventually([&] { return count("refused") >= 3; }));
  EXPECT_THAT(context_->failing("server"), HasSubstr("answered 401"));
  EXPECT_THAT(files("rejected"), IsEmpty());
  std::ofstream(folder_ / "token") << "right\n";
  finish();
  EXPECT_EQ(numbers_in(server_->taken()), from_to(0, 30));
  EXPECT_THAT(context_->all_dropped(), IsEmpty());
  for (const auto& [level, message] : context_->messages()) {
    EXPECT_THAT(message, Not(HasSubstr("wrong")));
  }
}

TEST_F(UploadTest, ARedirectionIsNotFollowed) {
  TestServer other;
  serve([&](const Request&) { return Reply{307, "", {{"Location", other.url()}}}; });
  options_.finish = 100ms;
  options_.chunk_age = 0ns;
  start();
  write(10);
  EXPECT_TRUE(eventually([&] { return count("refused") != 0; }));
  finish();
  EXPECT_THAT(other.heads(), IsEmpty());
  EXPECT_THAT(files(), SizeIs(1));
}

TEST_F(UploadTest, OneChunkThatTheServerFailsOnDoesNotStopTheOthers) {
  std::string poison;
  serve([&](const Request& head) {
    if (poison.empty()) poison = head.chunk;
    return head.chunk == poison ? Reply{500} : Reply{};
  });
  options_.chunk_age = 0ns;
  options_.finish = 100ms;
  start();
  for (int i = 0; i < 30; ++i) write(10);
  EXPECT_TRUE(eventually([&] { return server_->taken().size() == 29; }));
  EXPECT_EQ(numbers_in(server_->taken()), from_to(10, 300)) << "in order";
  finish();
  EXPECT_THAT(files(), SizeIs(1)) << "the server says that it is its own fault";
}

TEST_F(UploadTest, ALongOutageKeepsTheOrder) {
  std::atomic<bool> away{true};
  serve([&](const Request&) { return away ? Reply{503} : Reply{}; });
  options_.chunk_age = 0ns;
  start();
  for (int i = 0; i < 10; ++i) write(10);
  EXPECT_TRUE(eventually([&] { return count("retried") > 30; }));
  away = false;
  finish();
  std::vector<std::uint32_t> numbers = numbers_in(server_->taken());
  // One that happens to be under way when the server comes back may be ahead of the oldest.
  std::ranges::sort(numbers);
  EXPECT_EQ(numbers, from_to(0, 100));
}

TEST_F(UploadTest, TheEndIsBoundedAndWhatIsLeftStays) {
  serve([](const Request&) { return Reply{.how = Reply::How::hang}; });
  options_.finish = 100ms;
  options_.chunk_age = 0ns;
  start();
  write(10);
  write(10);
  const auto before = SteadyClock::now();
  finish();
  EXPECT_LT(SteadyClock::now() - before, 5s);
  EXPECT_THAT(files(), SizeIs(2));
  EXPECT_EQ(count("left"), 2U);
  EXPECT_EQ(context_->handled_items(), 20U);
  EXPECT_EQ(receipts_.done(), 2);
  EXPECT_TRUE(logged("2 chunks with 20 packets stay in"));
}

TEST_F(UploadTest, WritingDoesNotWaitForTheServer) {
  serve([](const Request&) { return Reply{.how = Reply::How::hang}; });
  options_.chunk_bytes = 64_KiB;
  options_.flush_bytes = 64_KiB;
  options_.finish = 10ms;
  start();
  const auto before = SteadyClock::now();
  for (int i = 0; i < 50; ++i) write(200, 1000);
  EXPECT_LT(SteadyClock::now() - before, 20s);
  EXPECT_GT(count("chunks"), 100U);
  EXPECT_TRUE(eventually([&] { return server_->heads().size() == 1; }));
  finish();
  EXPECT_EQ(context_->handled_items(), 10000U);
}

TEST_F(UploadTest, AStageThatFailsElsewhereLeavesItsPacketsInTheFolder) {
  no_server();
  start();
  write(10);
  close();  // without flush
  EXPECT_THAT(files(), ElementsAre(EndsWith("-10.pcap.zst")));
  EXPECT_EQ(receipts_.done(), 1);
}

TEST(Verdict, OfStatuses) {
  using Verdict = Answer::Verdict;
  for (const long status : {200, 201, 204}) EXPECT_EQ(verdict_of(status), Verdict::delivered);
  for (const long status : {408, 425, 429, 500, 502, 503, 504}) {
    EXPECT_EQ(verdict_of(status), Verdict::again) << status;
  }
  for (const long status : {301, 307, 401, 403, 407}) {
    EXPECT_EQ(verdict_of(status), Verdict::refused) << status;
  }
  for (const long status : {400, 404, 405, 411, 413, 415, 422}) {
    EXPECT_EQ(verdict_of(status), Verdict::rejected) << status;
  }
}

}  // namespace
}  // namespace millrace
