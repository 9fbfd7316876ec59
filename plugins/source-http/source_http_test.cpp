#include "source_http.h"

#include <random>

#include <zlib.h>
#include <zstd.h>

#include "http_fixture.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string gzip(const std::string& data) {
  z_stream stream{};
  deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&stream, data.size()) + 32, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(data.data()));
  stream.avail_in = static_cast<uInt>(data.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::string zstd(const std::string& data) {
  std::string out(ZSTD_compressBound(data.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), data.data(), data.size(), 3));
  return out;
}

std::string pcapng(int records) {
  std::string file = word(0x0A0D0D0A) + word(28) + word(0x1A2B3C4D) + std::string("\1\0\0\0", 4) +
                     std::string(8, '\xff') + word(28);
  file += word(1) + word(20) + word(113) + word(65535) + word(20);
  for (int i = 0; i < records; ++i) {
    file += word(6) + word(44) + word(0) + word(0) + word(1000000U * unsigned(i + 1)) + word(10) +
            word(110) + std::string(10, 'x') + std::string(2, '\0') + word(44);
  }
  return file;
}

std::string chunked(const std::string& body, std::size_t size) {
  std::string text;
  for (std::size_t at = 0; at < body.size(); at += size) {
    const std::string piece = body.substr(at, size);
    char length[20];
    std::snprintf(length, sizeof length, "%zx\r\n", piece.size());
    text += length + piece + "\r\n";
  }
  return text + "0\r\n\r\n";
}

TEST_F(HttpTest, TakesEveryKindOfBodyOnOneConnection) {
  start();
  Client one = client();
  const std::string file = classic(3);
  const Reply plain = one.post(file, "Millrace-Agent: a1\r\nMillrace-Chunk: c1\r\n");
  EXPECT_EQ(plain.status, 200);
  EXPECT_EQ(plain.body,
            "{\"chunk\":\"c1\",\"packets\":3,\"bytes\":" + std::to_string(file.size()) + "}\n");
  const auto seen = next_.seen();
  ASSERT_EQ(seen.size(), 3U);
  EXPECT_EQ(seen[2], (Collector::Seen{"a1", "c1", 2, 3000005000, 110, 1, std::string(10, 'c')}));
  EXPECT_EQ(next_.watermark(), kNoTime);

  EXPECT_EQ(one.post(gzip(file)).status, 200);
  EXPECT_EQ(one.post(zstd(file)).status, 200);
  EXPECT_EQ(one.post(gzip(file), "Content-Encoding: gzip\r\n").status, 200);
  EXPECT_EQ(one.post(zstd(file), "Content-Encoding: zstd\r\n").status, 200);
  EXPECT_EQ(one.post(pcapng(3)).status, 200);
  one.send("POST /v1/captures HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" +
           chunked(file, 7));
  EXPECT_EQ(one.receive().status, 200);
  const auto all = next_.seen();
  ASSERT_EQ(all.size(), 21U);
  for (std::size_t i = 3; i < all.size(); ++i) {
    EXPECT_EQ(all[i].number, i % 3);
    EXPECT_EQ(all[i].agent, "");
    EXPECT_EQ(all[i].chunk.size(), 32U);
    EXPECT_EQ(all[i].time / 1000000000, static_cast<std::int64_t>(i % 3 + 1));
    EXPECT_EQ(all[i].link, i / 3 == 5 ? 113 : 1);
    EXPECT_EQ(all[i].chunk == all[i - 1].chunk, i % 3 != 0);
  }
  EXPECT_EQ(count("uploads-ok"), 7U);
  EXPECT_EQ(count("packets"), 21U);
  EXPECT_EQ(count("connections"), 1U);
}

TEST_F(HttpTest, EmptyCaptureIsNoError) {
  start();
  EXPECT_THAT(client().post(classic(0)).body, HasSubstr("\"packets\":0"));
}

TEST_F(HttpTest, CutOffCaptureGivesItsWholePacketsAndSaysWhere) {
  start();
  const std::string file = classic(3);
  const Reply reply = client().post(file.substr(0, file.size() - 3));
  EXPECT_EQ(reply.status, 200);
  EXPECT_THAT(reply.body, HasSubstr("\"packets\":2,\"bytes\":99,\"offset\":76,\"lost\":23}"));
  EXPECT_EQ(count("truncated-records"), 1U);
  const std::string packed = gzip(file);
  EXPECT_THAT(client().post(packed.substr(0, packed.size() - 12)).body, HasSubstr("\"lost\":"));
  const std::string other = pcapng(3);
  EXPECT_THAT(client().post(other.substr(0, other.size() - 3)).body,
              HasSubstr("\"packets\":2,\"bytes\":177,\"offset\":136,\"lost\":41}"));
}

TEST_F(HttpTest, BadBodiesAreRefusedWithAReason) {
  start();
  const auto refused = [this](const std::string& body, const std::string& headers = "") {
    const Reply reply = client().post(body, headers);
    EXPECT_EQ(reply.status, 400) << reply.body;
    return reply.body;
  };
  EXPECT_THAT(refused("this is no capture"),
              AllOf(HasSubstr("not a capture"), HasSubstr("byte 0: 74 68 69 73 20 69 73 20")));
  EXPECT_THAT(refused(""), HasSubstr("empty"));
  EXPECT_THAT(refused(classic(1).substr(0, 10)), HasSubstr("not a capture"));
  EXPECT_THAT(refused(classic(1), "Content-Encoding: gzip\r\n"), HasSubstr("says gzip"));
  EXPECT_THAT(refused(gzip(classic(1)), "Content-Encoding: zstd\r\n"), HasSubstr("says zstd"));
  EXPECT_THAT(refused(classic(1), "Millrace-Agent: a b\r\n"), HasSubstr("Millrace-Agent must be"));
  EXPECT_THAT(refused(classic(1), "Millrace-Chunk: " + std::string(129, 'x') + "\r\n"),
              HasSubstr("Millrace-Chunk must be"));
  std::string damaged = classic(3);
  damaged.replace(24 + 26 + 8, 4, std::string(4, '\x7f'));
  EXPECT_THAT(refused(damaged),
              AllOf(HasSubstr("damaged at byte 50: record 2"), HasSubstr("\"packets\":1")));
  std::string packed = gzip(classic(300));
  packed[40] = static_cast<char>(packed[40] ^ 0x55);
  EXPECT_THAT(refused(packed), HasSubstr("gzip"));
  EXPECT_EQ(count("uploads-bad"), 9U);
  EXPECT_EQ(client().post(classic(1), "Content-Encoding: br\r\n").status, 415);
}

TEST_F(HttpTest, PathsAndMethods) {
  start();
  Client one = client();
  const auto ask = [&](const std::string& line) {
    one.send(line + " HTTP/1.1\r\nHost: x\r\n\r\n");
    return one.receive();
  };
  EXPECT_EQ(ask("GET /v1/health").body, "{\"status\":\"ok\"}\n");
  EXPECT_EQ(ask("GET /").status, 404);
  EXPECT_EQ(ask("PUT /v1/health").status, 405);
  const Reply reply = ask("GET /v1/captures?x=1");
  EXPECT_EQ(reply.status, 405);
  EXPECT_THAT(reply.head, HasSubstr("Allow: POST\r\n"));
  EXPECT_EQ(ask("POST /v1/captures").status, 411);
  EXPECT_EQ(count("connections"), 1U);
  Client other = client();
  other.send("\x16\x03\x01 what is this\r\n\r\n");
  EXPECT_EQ(other.receive().status, 400);
  Client large = client();
  large.send("GET /v1/health HTTP/1.1\r\nX: " + std::string(20000, 'x') + "\r\n\r\n");
  EXPECT_EQ(large.receive().status, 431);
}

TEST_F(HttpTest, AnswerWaitsForEveryReceipt) {
  options_.batch = 10;
  start();
  next_.receipts(Collector::Receipts::hold);
  Client one = client();
  std::jthread post([&] { EXPECT_EQ(one.post(classic(100)).status, 200); });
  ASSERT_TRUE(eventually([&] { return next_.held() == 10; }));
  EXPECT_FALSE(one.hears(200ms));
  next_.resolve(Outcome::done);
  post.join();
}

TEST_F(HttpTest, FailedReceiptIsAnswered503AndTheChunkMayComeAgain) {
  start();
  next_.receipts(Collector::Receipts::fail);
  Client one = client();
  const Reply reply = one.post(classic(100), "Millrace-Chunk: c\r\n");
  EXPECT_EQ(reply.status, 503);
  EXPECT_THAT(reply.head, HasSubstr("Retry-After: 1\r\n"));
  EXPECT_THAT(reply.body, HasSubstr("\"error\":\"a later stage failed"));
  next_.receipts(Collector::Receipts::done);
  EXPECT_THAT(one.post(classic(100), "Millrace-Chunk: c\r\n").body,
              AllOf(HasSubstr("\"packets\":100"), Not(HasSubstr("duplicate"))));
  const auto seen = next_.seen();
  ASSERT_EQ(seen.size(), 200U);
  EXPECT_EQ(seen[7], seen[107]) << "packets bear the same names on every try";
  EXPECT_EQ(count("uploads-unavailable"), 1U);
}

TEST_F(HttpTest, DeliveredChunkIsADuplicate) {
  options_.remember = 2;
  start();
  Client one = client();
  const auto post = [&](const std::string& agent, const std::string& chunk) {
    return one
        .post(classic(4), "Millrace-Agent: " + agent + "\r\nMillrace-Chunk: " + chunk + "\r\n")
        .body;
  };
  EXPECT_THAT(post("a", "1"), Not(HasSubstr("duplicate")));
  EXPECT_THAT(post("a", "1"), HasSubstr("\"packets\":4,\"bytes\":128,\"duplicate\":true"));
  EXPECT_THAT(post("b", "1"), Not(HasSubstr("duplicate"))) << "of another agent";
  EXPECT_THAT(post("a", "2"), Not(HasSubstr("duplicate")));
  EXPECT_THAT(post("a", "3"), Not(HasSubstr("duplicate")));
  EXPECT_THAT(post("a", "1"), Not(HasSubstr("duplicate"))) << "forgotten";
  EXPECT_THAT(post("b", "1"), HasSubstr("duplicate"));
  EXPECT_EQ(next_.packets(), 20U);
  EXPECT_EQ(count("uploads-duplicate"), 2U);
  EXPECT_EQ(count("packets"), 20U);
  EXPECT_EQ(count("connections"), 1U);
}

TEST_F(HttpTest, RefusedLargeBodiesAreTakenSoThatTheAnswerIsSeen) {
  start();
  const std::string file = classic(40000, 1000);
  const std::string headers = "Millrace-Chunk: c\r\n";
  EXPECT_EQ(client().post(file, headers).status, 200);
  EXPECT_THAT(client().post(file, headers).body, HasSubstr("duplicate"));
  EXPECT_EQ(client().post("no capture" + file).status, 400);
  EXPECT_EQ(client().post(file, "Content-Encoding: br\r\n").status, 415);
  EXPECT_EQ(next_.packets(), 40000U);
}

TEST_F(HttpTest, SameChunkAtTheSameTimeWaitsForTheFirst) {
  start();
  next_.receipts(Collector::Receipts::hold);
  Client one = client();
  Client two = client();
  const std::string headers = "Millrace-Chunk: c\r\n";
  std::jthread first(
      [&] { EXPECT_THAT(one.post(classic(4), headers).body, HasSubstr("packets")); });
  ASSERT_TRUE(eventually([&] { return next_.held() == 1; }));
  std::jthread second(
      [&] { EXPECT_THAT(two.post(classic(4), headers).body, HasSubstr("duplicate")); });
  EXPECT_FALSE(two.hears(200ms));
  next_.resolve(Outcome::done);
  first.join();
  second.join();
  EXPECT_EQ(next_.packets(), 4U);

  // If the first fails, the second takes its place.
  std::jthread third([&] { EXPECT_EQ(one.post(classic(4), "Millrace-Chunk: d\r\n").status, 503); });
  ASSERT_TRUE(eventually([&] { return next_.held() == 1; }));
  std::jthread fourth([&] {
    EXPECT_THAT(two.post(classic(4), "Millrace-Chunk: d\r\n").body, Not(HasSubstr("duplicate")));
  });
  EXPECT_FALSE(two.hears(200ms));
  next_.receipts(Collector::Receipts::done);
  next_.resolve(Outcome::failed);
  third.join();
  fourth.join();
  EXPECT_EQ(next_.packets(), 12U);
}

TEST_F(HttpTest, LimitsOfSize) {
  options_.max_body = 64_KiB;
  options_.max_unpacked = 1_MiB;
  start();
  const std::string large = classic(1000, 100);
  EXPECT_EQ(client().post(large).status, 413);
  Client one = client();
  one.send("POST /v1/captures HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" +
           chunked(large, 1000));
  const Reply found_late = one.receive();
  EXPECT_EQ(found_late.status, 413);
  EXPECT_THAT(found_late.body, HasSubstr("larger than 65536 bytes"));
  const std::string bomb = zstd(classic(1000, 60000));
  ASSERT_LT(bomb.size(), 65536U);
  const Reply exploded = client().post(bomb);
  EXPECT_EQ(exploded.status, 413);
  EXPECT_THAT(exploded.body, HasSubstr("larger than 1048576 bytes"));
  EXPECT_EQ(client().post(classic(3)).status, 200);
  EXPECT_EQ(count("uploads-too-large"), 3U);
}

TEST_F(HttpTest, ExpectContinueIsAnsweredBeforeTheBody) {
  options_.max_body = 4_KiB;
  start();
  Client one = client();
  const std::string file = classic(3);
  const auto head = [](std::size_t size) {
    return "POST /v1/captures HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: " +
           std::to_string(size) + "\r\n\r\n";
  };
  one.send(head(file.size()));
  EXPECT_EQ(one.receive().status, 100);
  one.send(file);
  EXPECT_EQ(one.receive().status, 200);
  one.send(head(1000000));
  const Reply reply = one.receive();
  EXPECT_EQ(reply.status, 413);
  EXPECT_THAT(reply.head, HasSubstr("Connection: close"));
}

TEST_F(HttpTest, UndeliveredInTimeIs503AndDeliveredLaterADuplicate) {
  options_.answer_timeout = 300ms;
  start();
  next_.receipts(Collector::Receipts::hold);
  const std::string headers = "Millrace-Chunk: c\r\n";
  const Reply reply = client().post(classic(2), headers);
  EXPECT_EQ(reply.status, 503);
  EXPECT_THAT(reply.body, HasSubstr("not delivered in time"));
  next_.resolve(Outcome::done);
  EXPECT_THAT(client().post(classic(2), headers).body, HasSubstr("duplicate"));
}

TEST_F(HttpTest, WatermarkOfPackets) {
  options_.watermark = WatermarkKind::packets;
  start();
  EXPECT_EQ(client().post(classic(3)).status, 200);
  EXPECT_EQ(next_.watermark(), Timestamp(Duration(3000005000)) - PacketClock::kLate);
  const std::uint64_t before = next_.ticks();
  EXPECT_TRUE(eventually([&] { return next_.ticks() >= before + 3; }));
  EXPECT_EQ(next_.watermark(), Timestamp(Duration(3000005000)) - PacketClock::kLate);
}

TEST_F(HttpTest, RandomBytesNeverStopIt) {
  start();
  std::minstd_rand random(1);
  for (int i = 0; i < 300; ++i) {
    std::string body(random() % 3000, '\0');
    for (char& c : body) c = static_cast<char>(random());
    const std::string heads[] = {"", classic(0), pcapng(1), gzip(classic(5)).substr(0, 20),
                                 zstd(classic(5)).substr(0, 8)};
    Client one = client();
    if (i % 7 == 6) {
      one.send(body.empty() ? "x" : body);  // no request at all
      continue;
    }
    const Reply reply = one.post(heads[i % 5] + body);
    EXPECT_TRUE(reply.status == 400 || reply.status == 200) << reply.status << reply.body;
  }
  EXPECT_EQ(client().post(classic(1)).status, 200);
}

}  // namespace
}  // namespace millrace
