#include <sys/resource.h>

#include "http_fixture.h"
#include "source_http.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST_F(HttpTest, BlockedNextStageStopsTheReadingAndThenIsToldToTheClient) {
  options_.hand_over = 2;
  options_.batch = 10;
  options_.batch_bytes = 64_KiB;
  options_.buffer = 64_KiB;
  options_.blocked = 6s;
  start();
  next_.block(true);
  Client one = client();
  const std::string file = classic(40000, 1000);
  std::atomic<std::size_t> sent{0};
  Reply reply;
  std::jthread post([&] {
    one.send("POST /v1/captures HTTP/1.1\r\nHost: x\r\nContent-Length: " +
             std::to_string(file.size()) + "\r\n\r\n");
    for (std::size_t at = 0; at < file.size(); at += 10000) {
      if (!one.send(std::string_view(file).substr(at, 10000))) break;
      sent = at;
    }
    reply = one.receive();
  });
  std::size_t before = 0;
  EXPECT_TRUE(eventually([&] { return sent > 100000; }));
  do {
    before = sent;
    std::this_thread::sleep_for(100ms);
  } while (sent != before);
  EXPECT_LT(before, file.size() / 2) << "most of the body must still be with the client";
  EXPECT_TRUE(eventually([&] { return count("uploads-unavailable") == 1; }));
  // The next one does not wait.
  const Reply next = client().post(classic(1));
  EXPECT_EQ(next.status, 503);
  Client asking = client();
  asking.send("GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_THAT(asking.receive().body, HasSubstr("blocked"));
  next_.block(false);
  post.join();
  EXPECT_EQ(reply.status, 503);
  EXPECT_TRUE(eventually([&] { return client().post(classic(1)).status == 200; }));
}

TEST_F(HttpTest, BrokenAndSlowClients) {
  options_.body_timeout = 300ms;
  options_.header_timeout = 300ms;
  options_.idle_timeout = 300ms;
  start();
  const std::string file = classic(1000);
  const std::string head =
      "POST /v1/captures HTTP/1.1\r\nHost: x\r\nMillrace-Chunk: c\r\nContent-Length: " +
      std::to_string(file.size()) + "\r\n\r\n";
  {
    Client broken = client();
    broken.send(head + file.substr(0, 5000));
  }
  EXPECT_TRUE(eventually([&] { return count("uploads-cut") == 1; }));
  Client slow = client();
  slow.send(head + file.substr(0, 5000));
  // Drips are too slow as well.
  std::atomic<bool> over{false};
  std::jthread drip([&] {
    while (!over && slow.send("x")) std::this_thread::sleep_for(50ms);
  });
  EXPECT_TRUE(eventually([&] { return count("uploads-cut") == 2; }));
  over = true;
  drip.join();
  Client half = client();
  half.send("POST /v1/cap");
  EXPECT_TRUE(half.hears(20s));
  EXPECT_EQ(half.receive().status, 0);
  Client idle = client();
  EXPECT_TRUE(idle.hears(20s));
  EXPECT_EQ(idle.receive().status, 0);
  // The chunk is free again.
  EXPECT_THAT(client().post(file, "Millrace-Chunk: c\r\n").body, HasSubstr("\"packets\":1000"));
}

TEST_F(HttpTest, DrainingLetsUploadsFinishAndTakesNoMore) {
  start();
  next_.receipts(Collector::Receipts::hold);
  Client kept = client();
  Client one = client();
  ASSERT_TRUE(eventually([&] { return count("connections") == 2; }));
  Reply reply;
  std::jthread post([&] { reply = one.post(classic(5)); });
  ASSERT_TRUE(eventually([&] { return next_.held() == 1; }));
  stop_.request_stop();
  EXPECT_TRUE(eventually([&] { return !client().connected(); }));
  kept.send("GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_THAT(kept.receive().body, HasSubstr("draining"));
  EXPECT_EQ(kept.post(classic(1)).status, 503);
  EXPECT_FALSE(returned_);
  next_.resolve(Outcome::done);
  post.join();
  EXPECT_EQ(reply.status, 200);
  EXPECT_TRUE(eventually([&] { return returned_.load(); }, 2s)) << "long before 'finish'";
}

TEST_F(HttpTest, DrainingEndsWhenItsTimeIsOver) {
  options_.finish = 300ms;
  start();
  next_.receipts(Collector::Receipts::hold);
  Client one = client();
  Client unfinished = client();
  Reply reply;
  std::jthread post([&] { reply = one.post(classic(5)); });
  unfinished.send("POST /v1/captures HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nab");
  ASSERT_TRUE(eventually([&] { return next_.held() == 1; }));
  stop_.request_stop();
  EXPECT_TRUE(eventually([&] { return returned_.load(); }, 10s));
  post.join();
  EXPECT_EQ(reply.status, 503);
  EXPECT_THAT(reply.body, HasSubstr("shutting down"));
  stop();
  next_.resolve(Outcome::done);  // after everything has gone
}

TEST_F(HttpTest, DrainingAnswersInTimeWhileTheNextStageBlocks) {
  options_.finish = 300ms;
  start();
  next_.block(true);
  Client one = client();
  std::jthread post([&] { one.send(request(classic(5000))); });
  EXPECT_FALSE(one.hears(100ms));
  stop_.request_stop();
  EXPECT_EQ(one.receive().status, 503);
  EXPECT_FALSE(returned_) << "the push is still under way";
  next_.block(false);
  EXPECT_TRUE(eventually([&] { return returned_.load(); }, 10s));
}

TEST_F(HttpTest, ThousandIdleConnectionsAndUploadsWithFewThreads) {
  rlimit files{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &files), 0);
  constexpr rlim_t kNeeded = 2200;  // both ends
  if (files.rlim_cur < kNeeded) {
    files.rlim_cur = std::min(kNeeded, files.rlim_max);
    ::setrlimit(RLIMIT_NOFILE, &files);
    if (files.rlim_cur < kNeeded) GTEST_SKIP() << "only " << files.rlim_max << " open files";
  }
  options_.max_uploads = 8;
  start();
  std::vector<Client> idle;
  for (int i = 0; i < 1000; ++i) {
    idle.emplace_back(port_);
    ASSERT_TRUE(idle.back().connected()) << i;
  }
  for (Client& one : idle) one.send("GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n");
  for (Client& one : idle) ASSERT_EQ(one.receive().status, 200);
  EXPECT_EQ(count("connections"), 1000U);
  for (std::size_t i = 0; i < idle.size(); i += 10) {
    ASSERT_EQ(idle[i].post(classic(20, 500)).status, 200) << i;
  }
  std::size_t threads = 0;
  for ([[maybe_unused]] const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    ++threads;
  }
  EXPECT_LE(threads, 4U + options_.io_threads + options_.max_uploads);
  EXPECT_EQ(next_.packets(), 2000U);
}

TEST_F(HttpTest, ManyUploadsAtOnceKeepTheirPacketsApart) {
  options_.batch = 7;
  options_.max_uploads = 16;
  start();
  std::vector<std::jthread> clients;
  for (int c = 0; c < 8; ++c) {
    clients.emplace_back([this, c] {
      Client one = client();
      for (int i = 0; i < 10; ++i) {
        const std::string headers = "Millrace-Agent: agent" + std::to_string(c) +
                                    "\r\nMillrace-Chunk: " + std::to_string(i) + "\r\n";
        EXPECT_EQ(one.post(classic(50 + c), headers).status, 200);
      }
    });
  }
  for (auto& one : clients) one.join();
  std::map<std::pair<std::string, std::string>, std::uint32_t> next;
  for (const auto& seen : next_.seen()) {
    EXPECT_EQ(seen.number, (next[{seen.agent, seen.chunk}]++)) << seen.agent << seen.chunk;
  }
  EXPECT_EQ(next.size(), 80U);
  EXPECT_EQ((next[{"agent7", "9"}]), 57U);
}

TEST_F(HttpTest, TooManyUploads) {
  options_.max_uploads = 2;
  start();
  next_.receipts(Collector::Receipts::hold);
  std::vector<std::jthread> posts;
  for (int i = 0; i < 2; ++i) {
    posts.emplace_back([this] { EXPECT_EQ(client().post(classic(1)).status, 200); });
  }
  ASSERT_TRUE(eventually([&] { return next_.held() == 2; }));
  Client one = client();
  const Reply reply = one.post(classic(1));
  EXPECT_EQ(reply.status, 429);
  EXPECT_THAT(reply.head, HasSubstr("Retry-After"));
  one.send("GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(one.receive().status, 200);
  next_.resolve(Outcome::done);
  for (auto& post : posts) post.join();
  next_.receipts(Collector::Receipts::done);
  EXPECT_EQ(one.post(classic(1)).status, 200);
}

TEST_F(HttpTest, SlowUploadsMakeWayForOthers) {
  options_.max_uploads = 4;
  options_.blocked = 300ms;
  start();
  const std::string head =
      "POST /v1/captures HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n" + classic(1);
  std::vector<Client> slow;
  for (int i = 0; i < 4; ++i) {
    slow.push_back(client());
    slow.back().send(head);
  }
  std::atomic<bool> over{false};
  std::jthread drip([&] {
    while (!over) {
      for (Client& one : slow) one.send(std::string(100, 'x'));
      std::this_thread::sleep_for(100ms);
    }
  });
  // Every place is taken: that is said, and by whom it asks is answered.
  EXPECT_TRUE(eventually([&] { return !context_.failing("uploads").empty(); }));
  Client asking = client();
  asking.send("GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n");
  const Reply health = asking.receive();
  EXPECT_EQ(health.status, 503);
  EXPECT_THAT(health.body, HasSubstr("4 places for uploads"));
  EXPECT_TRUE(eventually([&] { return client().post(classic(1)).status == 200; }, 15s))
      << "long before body_timeout";
  EXPECT_TRUE(eventually([&] { return context_.failing("uploads").empty(); }));
  over = true;
  EXPECT_TRUE(eventually([&] { return count("uploads-cut") >= 1; }));
}

TEST_F(HttpTest, OneAddressHasNotAllPlaces) {
  options_.max_uploads = 4;
  options_.address_uploads = 2;
  start();
  next_.receipts(Collector::Receipts::hold);
  std::vector<std::jthread> posts;
  for (int i = 0; i < 2; ++i) {
    posts.emplace_back([this] { EXPECT_EQ(client().post(classic(1)).status, 200); });
  }
  ASSERT_TRUE(eventually([&] { return next_.held() == 2; }));
  EXPECT_EQ(client().post(classic(1)).status, 429);
  Client other("127.0.0.2", port_);
  std::jthread post([&] { EXPECT_EQ(other.post(classic(1)).status, 200); });
  EXPECT_TRUE(eventually([&] { return next_.held() == 3; }));
  next_.resolve(Outcome::done);
}

TEST_F(HttpTest, ANamedChunkThatWaitsHasNoPlace) {
  options_.max_uploads = 2;
  start();
  next_.receipts(Collector::Receipts::hold);
  Client one = client();
  Client two = client();
  std::jthread first([&] { one.post(classic(1), "Millrace-Chunk: c\r\n"); });
  ASSERT_TRUE(eventually([&] { return next_.held() == 1; }));
  std::jthread second([&] { two.post(classic(1), "Millrace-Chunk: c\r\n"); });
  EXPECT_FALSE(two.hears(200ms));
  std::jthread third([&] { EXPECT_EQ(client().post(classic(1)).status, 200); });
  EXPECT_TRUE(eventually([&] { return next_.held() == 2; }));
  next_.resolve(Outcome::done);
}

TEST_F(HttpTest, HealthSaysWhenThePipelineIsNotReady) {
  start();
  context_.set_not_ready("sessions: Redis is away");
  Client one = client();
  one.send("GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n");
  const Reply reply = one.receive();
  EXPECT_EQ(reply.status, 503);
  EXPECT_THAT(reply.body, HasSubstr("sessions: Redis is away"));
}

TEST_F(HttpTest, HealthSaysWhenTheNextStageHoldsOnePush) {
  options_.blocked = 300ms;
  start();
  next_.block(true);
  EXPECT_TRUE(eventually([&] { return !context_.failing("next-stage").empty(); }));
  EXPECT_EQ(client().post(classic(1)).status, 503);
  next_.block(false);
  EXPECT_TRUE(eventually([&] { return context_.failing("next-stage").empty(); }));
}

TEST_F(HttpTest, OtherContentUnderAnOldNameIsCounted) {
  start();
  const std::string headers = "Millrace-Agent: a\r\nMillrace-Chunk: c\r\n";
  EXPECT_EQ(client().post(classic(3), headers).status, 200);
  EXPECT_THAT(client().post(classic(3), headers).body, Not(HasSubstr("differs")));
  EXPECT_EQ(count("duplicate-differs"), 0U);
  EXPECT_THAT(client().post(classic(4), headers).body, HasSubstr("\"differs\":true"));
  EXPECT_EQ(count("duplicate-differs"), 1U);
  EXPECT_EQ(count("uploads-duplicate"), 2U);
  EXPECT_THAT(context_.messages().back().second, HasSubstr("names of their own"));
}

TEST_F(HttpTest, AtTheEndRefusedUploadsAreAdded) {
  start();
  for (int i = 0; i < 20; ++i) EXPECT_EQ(client().post("no capture").status, 400);
  stop();
  bool told = false;
  for (const auto& [level, message] : context_.messages()) {
    told |= message.starts_with("20 uploads were refused or not finished");
  }
  EXPECT_TRUE(told);
}

TEST_F(HttpTest, TheOldestIdleConnectionMakesRoom) {
  options_.max_connections = 2;
  start();
  const std::string health = "GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n";
  Client one = client();
  one.send(health);
  EXPECT_EQ(one.receive().status, 200);
  Client two = client();
  two.send(health);
  EXPECT_EQ(two.receive().status, 200);
  Client three = client();
  three.send(health);
  EXPECT_EQ(three.receive().status, 200);
  EXPECT_EQ(one.receive().status, 0) << "closed";
  two.send(health);
  EXPECT_EQ(two.receive().status, 200);
}

TEST_F(HttpTest, OneAddressDoesNotShutOutOthers) {
  options_.max_connections = 4;
  options_.address_connections = 2;
  start();
  const std::string health = "GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n";
  Client other("127.0.0.2", port_);
  other.send(health);
  EXPECT_EQ(other.receive().status, 200);
  std::vector<Client> many;
  for (int i = 0; i < 10; ++i) many.push_back(client());
  ASSERT_TRUE(eventually([&] { return count("connections") == 11; }));
  other.send(health);
  EXPECT_EQ(other.receive().status, 200);
}

TEST_F(HttpTest, WhereNobodyMakesRoomThatIsSaid) {
  options_.address_connections = 1;
  start();
  next_.receipts(Collector::Receipts::hold);
  std::jthread post([this] { EXPECT_EQ(client().post(classic(1)).status, 200); });
  ASSERT_TRUE(eventually([&] { return next_.held() == 1; }));
  const Reply reply = client().receive();
  EXPECT_EQ(reply.status, 503);
  EXPECT_THAT(reply.head, HasSubstr("Retry-After"));
  EXPECT_THAT(reply.body, HasSubstr("too many connections"));
  next_.resolve(Outcome::done);
}

TEST_F(HttpTest, ManyRefusalsAreOneLineWithNames) {
  start();
  Client one = client();
  for (int i = 0; i < 200; ++i) {
    ASSERT_EQ(one.post("no capture", "Millrace-Agent: site-1\r\n").status, 400);
  }
  EXPECT_EQ(count("uploads-bad"), 200U);
  stop();
  std::size_t lines = 0;
  std::uint64_t more = 0;
  for (const auto& [level, message] : context_.messages()) {
    if (level != LogLevel::warning) continue;
    ++lines;
    if (message.find("more uploads refused") != std::string::npos) {
      EXPECT_THAT(message, HasSubstr("from agent 'site-1' at 127.0.0.1"));
      more += std::stoul(message);
    }
  }
  EXPECT_EQ(more, 195U) << "five have lines of their own";
  EXPECT_LT(lines, 60U);
}

}  // namespace
}  // namespace millrace
