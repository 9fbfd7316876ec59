#include <fcntl.h>

#include "upload_fixture.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

TEST_F(UploadTest, AChunkIsACaptureWithItsNames) {
  serve();
  options_.token = "secret";
  start();
  write(3, 60);
  finish();
  const std::vector<Request> taken = server_->taken();
  ASSERT_THAT(taken, SizeIs(1));
  EXPECT_EQ(taken[0].target, "/v1/captures");
  EXPECT_EQ(taken[0].agent, "one");
  EXPECT_THAT(taken[0].chunk, ::testing::MatchesRegex("[0-9a-f]{32}"));
  EXPECT_EQ(taken[0].encoding, "zstd");
  EXPECT_EQ(taken[0].authorization, "Bearer secret");
  const std::string raw = unpacked(taken[0].body);
  ASSERT_EQ(raw.size(), 24U + 3 * (16 + 60));
  EXPECT_EQ(raw.substr(0, 8), std::string("\x4d\x3c\xb2\xa1\x02\0\x04\0", 8));
  EXPECT_EQ(raw.substr(20, 4), std::string("\1\0\0\0", 4));
  // The second record: 1700000000 s, 1 ms, 60 of 65 bytes.
  EXPECT_EQ(raw.substr(24 + 76, 16),
            std::string("\x00\xf1\x53\x65\x40\x42\x0f\0\x3c\0\0\0\x41\0\0\0", 16));
  EXPECT_EQ(numbers_in(taken), from_to(0, 3));
  EXPECT_THAT(files(), IsEmpty());
  EXPECT_EQ(receipts_.done(), 1);
  EXPECT_EQ(context_->handled_items(), 3U);
  EXPECT_EQ(count("uploaded"), 1U);
  EXPECT_EQ(count("uploaded-packets"), 3U);
  EXPECT_EQ(count("uploaded-bytes"), taken[0].body.size());
}

TEST_F(UploadTest, ARunWithoutPacketsUploadsNothing) {
  serve();
  start();
  tick(2h);
  finish();
  EXPECT_THAT(server_->heads(), IsEmpty());
  EXPECT_EQ(count("chunks"), 0U);
}

TEST_F(UploadTest, AReceiptIsDoneWhenItsChunkIsSafeInTheFolder) {
  no_server();
  start();
  write(10);
  tick(30min);
  EXPECT_EQ(receipts_.pending(), 1) << "the chunk is open";
  tick(30min);
  EXPECT_TRUE(eventually([&] { return receipts_.done() == 1; }));
  EXPECT_THAT(files(), ElementsAre(::testing::EndsWith("-10.pcap.zst")));
}

TEST_F(UploadTest, WithoutAFolderAReceiptIsDoneWhenItsChunkIsUploaded) {
  no_server();
  options_.spool = "tmp";
  options_.chunk_age = 0ns;
  start();
  write(10);
  EXPECT_TRUE(eventually([&] { return count("retried") > 2; }));
  EXPECT_EQ(receipts_.pending(), 1);
  serve();
  EXPECT_TRUE(eventually([&] { return receipts_.done() == 1; }));
  EXPECT_EQ(numbers_in(server_->taken()), from_to(0, 10));
  finish();
}

TEST_F(UploadTest, WithoutAFolderWhatIsNotUploadedAtTheEndIsDropped) {
  no_server();
  options_.spool = "tmp";
  options_.finish = 50ms;
  start();
  write(10);
  finish();
  EXPECT_EQ(context_->dropped_for("unsent"), 10U);
  EXPECT_EQ(context_->handled_items(), 0U);
  EXPECT_EQ(receipts_.done(), 1);
}

TEST_F(UploadTest, ChunksEndBySizeAgeAndLinkType) {
  serve();
  options_.chunk_bytes = 64_KiB;
  options_.flush_bytes = 10_KiB;
  options_.chunk_age = 2s;
  options_.flush_every = 1h;
  start();
  write(1000, 200);  // 216 bytes each in the capture: 303 fit into 64 KiB
  EXPECT_TRUE(eventually([&] { return server_->taken().size() == 3; }));
  tick(1999ms);
  EXPECT_EQ(count("chunks"), 3U);
  tick(1ms);
  EXPECT_EQ(count("chunks"), 4U);
  write(5);
  write(5, 100, LinkType::raw_dlt);
  EXPECT_EQ(count("chunks"), 5U);
  finish();
  const std::vector<Request> taken = server_->taken();
  std::vector<std::size_t> sizes;
  for (const Request& request : taken) sizes.push_back(numbers_in(request.body).size());
  EXPECT_THAT(sizes, ElementsAre(303, 303, 303, 91, 5, 5));
  EXPECT_EQ(numbers_in(taken), from_to(0, 1010));
  EXPECT_EQ(unpacked(taken[5].body).substr(20, 4), std::string("\x65\0\0\0", 4));
  EXPECT_EQ(receipts_.done(), 3);
  EXPECT_EQ(context_->handled_items(), 1010U);
}

TEST_F(UploadTest, PacketsReachTheFileInBoundedTime) {
  no_server();
  options_.flush_every = 1s;
  start();
  write(10);
  EXPECT_THAT(files(), IsEmpty());
  tick(999ms);
  EXPECT_THAT(files(), IsEmpty());
  tick(1ms);
  ASSERT_THAT(files(), ElementsAre(::testing::EndsWith(".part")));
  const auto written = [&] {
    const Descriptor file(::open((fs::path(options_.spool) / files()[0]).c_str(), O_RDONLY));
    return read_chunk(file.get()).packets;
  };
  EXPECT_EQ(written(), 10U);
  write(15000);  // more than flush_bytes
  EXPECT_GT(written(), 9000U);
}

TEST_F(UploadTest, AClockThatIsSetBackHoldsNothingUp) {
  serve();
  options_.chunk_age = 2s;
  start();
  write(1);
  tick(-1h);
  EXPECT_TRUE(eventually([&] { return server_->taken().size() == 1; }));
}

TEST_F(UploadTest, WhatNoCaptureCanHoldIsRejected) {
  serve();
  start();
  const std::vector<std::byte> big(kMostCaptured + 1);
  Batch<Packet> batch({{Timestamp(1s), big.data(), 10, 10},
                       {Timestamp(1s), big.data(), kMostCaptured + 1, kMostCaptured + 1},
                       {Timestamp(-1s), big.data(), 10, 10}});
  try {
    sink_->write(batch);
    FAIL() << "nothing was thrown";
  } catch (const Rejected& error) {
    EXPECT_THAT(error.items(), ElementsAre(1, 2));
  }
  finish();
  EXPECT_THAT(server_->heads(), IsEmpty());
}

TEST_F(UploadTest, TheLargestPacketsPass) {
  serve();
  options_.flush_bytes = 4_MiB;
  start();
  write(40, kMostCaptured);
  finish();
  EXPECT_EQ(numbers_in(server_->taken()), from_to(0, 40));
}

TEST_F(UploadTest, ManyUploadsAtATime) {
  std::atomic<int> here{0};
  std::atomic<int> most{0};
  serve([&](const Request&) {
    const int now = ++here;
    for (int seen = most; seen < now && !most.compare_exchange_weak(seen, now);) {
    }
    eventually([&] { return most == 4; }, 2s);
    --here;
    return Reply{};
  });
  options_.uploads = 4;
  options_.chunk_age = 0ns;
  start();
  for (int i = 0; i < 20; ++i) write(5);
  finish();
  EXPECT_EQ(most, 4);
  std::vector<std::uint32_t> numbers = numbers_in(server_->taken());
  std::ranges::sort(numbers);
  EXPECT_EQ(numbers, from_to(0, 100));
  EXPECT_EQ(receipts_.done(), 20);
}

TEST_F(UploadTest, ThreadsBlockSignals) {
  serve();
  options_.uploads = 2;
  start();
  const auto uploaders = [] {
    std::vector<std::string> masks;
    for (const auto& task : fs::directory_iterator("/proc/self/task")) {
      if (content(task.path() / "comm") != "upload\n") continue;
      const std::string status = content(task.path() / "status");
      const std::size_t at = status.find("SigBlk:\t") + 8;
      masks.push_back(status.substr(at, status.find('\n', at) - at));
    }
    return masks;
  };
  EXPECT_TRUE(eventually([&] { return uploaders().size() == 2; }));
  for (const std::string& mask : uploaders()) {
    const unsigned long long bits = std::stoull(mask, nullptr, 16);
    for (const int signal : {SIGINT, SIGTERM, SIGPIPE, SIGHUP, SIGUSR1}) {
      EXPECT_NE(bits & (1ULL << static_cast<unsigned>(signal - 1)), 0U) << signal;
    }
  }
}

TEST_F(UploadTest, MistakesInOptions) {
  const auto findings = [](const auto& change) {
    UploadOptions options;
    options.url = "https://receiver:8443";
    options.spool = "spool";
    change(options);
    Findings found;
    check_upload_options(options, found);
    std::vector<std::string> names;
    for (const Findings::Finding& finding : found.list()) names.push_back(finding.option);
    return names;
  };
  EXPECT_THAT(findings([](auto&) {}), IsEmpty());
  for (const char* url : {"", "receiver", "ftp://receiver", "http://", "https://u:p@receiver"}) {
    EXPECT_THAT(findings([&](auto& o) { o.url = url; }), ElementsAre("url")) << url;
  }
  EXPECT_THAT(findings([](auto& o) { o.agent = "a b"; }), ElementsAre("agent"));
  EXPECT_THAT(findings([](auto& o) { o.agent = std::string(129, 'a'); }), ElementsAre("agent"));
  EXPECT_THAT(findings([](auto& o) { o.spool = ""; }), ElementsAre("spool"));
  EXPECT_THAT(findings([](auto& o) { o.key = "k"; }), ElementsAre("key"));
  EXPECT_THAT(findings([](auto& o) { o.certificate = "c"; }), ElementsAre("certificate"));
  EXPECT_THAT(findings([](auto& o) {
                o.url = "http://receiver";
                o.ca = "ca";
              }),
              ElementsAre("ca"));
  EXPECT_THAT(findings([](auto& o) { o.token = o.token_file = "x"; }), ElementsAre("token_file"));
  EXPECT_THAT(findings([](auto& o) { o.spool_bytes = {o.chunk_bytes.bytes * 2 - 1}; }),
              ElementsAre("spool_bytes"));
}

TEST_F(UploadTest, WhatCannotWorkIsToldAtTheStart) {
  no_server();
  const auto wrong = [&](const char* option, const auto& change) {
    const UploadOptions before = options_;
    change(options_);
    try {
      start();
      ADD_FAILURE() << "nothing was thrown for " << option;
    } catch (const ConfigError& error) {
      EXPECT_EQ(error.option(), option) << error.what();
    }
    options_ = before;
  };
  for (const char* name : {"ca", "certificate", "key", "token_file"}) {
    wrong(name, [&](auto& o) {
      (name == std::string("ca")            ? o.ca
       : name == std::string("certificate") ? o.certificate
       : name == std::string("key")         ? o.key
                                            : o.token_file) = folder_ / "none";
    });
  }
  std::ofstream(folder_ / "empty") << "\n";
  wrong("token_file", [&](auto& o) { o.token_file = folder_ / "empty"; });
  wrong("token", [&](auto& o) { o.token = "a b"; });
  wrong("spool", [&](auto& o) { o.spool = folder_ / "none" / "spool"; });
  wrong("spool", [&](auto& o) { o.spool = folder_ / "empty"; });
}

TEST(UploadOptions, NamesAreMadeToFit) {
  UploadOptions options;
  EXPECT_FALSE(agent_name(options).empty());
  options.agent = "site/1";
  EXPECT_EQ(agent_name(options), "site/1");
  const auto url_of = [](const char* url) {
    UploadOptions made;
    made.url = url;
    return http_server(made).url;
  };
  EXPECT_EQ(url_of("http://r:1"), "http://r:1/v1/captures");
  EXPECT_EQ(url_of("http://r:1/"), "http://r:1/v1/captures");
  EXPECT_EQ(url_of("https://r/in/put?x=1"), "https://r/in/put?x=1");
}

}  // namespace
}  // namespace millrace
