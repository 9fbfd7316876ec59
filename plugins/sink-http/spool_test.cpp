#include <sys/file.h>
#include <sys/mount.h>

#include "upload_fixture.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

TEST_F(UploadTest, TheNextStartSendsWhatIsThereInOrder) {
  no_server();
  options_.chunk_age = 0ns;
  options_.finish = 0ns;
  start();
  for (int i = 0; i < 5; ++i) write(10);
  finish();
  EXPECT_THAT(files(), SizeIs(5));
  serve();
  options_.finish = 20s;
  start();
  write(10);
  finish();
  EXPECT_EQ(numbers_in(server_->taken()), from_to(0, 60));
  EXPECT_EQ(count("recovered"), 5U);
  EXPECT_EQ(count("recovered-packets"), 50U);
  EXPECT_EQ(count("uploaded-packets"), 60U);
  EXPECT_EQ(context_->handled_items(), 10U) << "of this run";
  EXPECT_THAT(files(), IsEmpty());
}

TEST_F(UploadTest, AChunkKeepsItsNameOverARestart) {
  std::atomic<bool> answers{false};
  serve([&](const Request&) { return answers ? Reply{} : Reply{.how = Reply::How::cut}; });
  options_.finish = 0ns;
  options_.chunk_age = 0ns;
  start();
  write(10);
  EXPECT_TRUE(eventually([&] { return !server_->heads().empty(); }));
  finish();
  answers = true;
  options_.finish = 20s;
  start();
  finish();
  ASSERT_THAT(server_->taken(), SizeIs(1));
  EXPECT_EQ(server_->taken()[0].chunk, server_->heads()[0].chunk);
}

TEST_F(UploadTest, ACrashLosesOnlyWhatWasInMemory) {
  no_server();
  options_.flush_bytes = 10_KiB;
  start();
  write(1000);
  ASSERT_THAT(files(), ElementsAre(EndsWith(".part")));
  crash();
  serve();
  start();
  EXPECT_EQ(count("recovered"), 1U);
  finish();
  const std::vector<std::uint32_t> numbers = numbers_in(server_->taken());
  EXPECT_EQ(numbers, from_to(0, static_cast<std::uint32_t>(numbers.size())));
  EXPECT_GE(numbers.size(), 1000U - 10240 / 116) << "flush_bytes, in packets";
  EXPECT_LT(numbers.size(), 1000U);
  EXPECT_EQ(count("recovered-packets"), numbers.size());
}

TEST_F(UploadTest, AFileThatBreaksOffAnywhereIsGoodUpToThere) {
  no_server();
  options_.flush_bytes = 4_KiB;
  start();
  write(200);
  crash();
  const std::string name = files().at(0);
  const std::string whole = content(fs::path(options_.spool) / name);
  serve();
  std::size_t before = 0;
  for (std::size_t size = 0; size <= whole.size(); size += 1 + whole.size() / 40) {
    std::ofstream(fs::path(options_.spool) / name, std::ios::binary) << whole.substr(0, size);
    const std::size_t had = server_->taken().size();
    start();
    finish();
    EXPECT_THAT(files(), IsEmpty()) << size;
    const std::vector<Request> taken = server_->taken();
    if (taken.size() == had) {
      EXPECT_EQ(count("damaged"), size == 0 ? 0U : 1U) << size;
      EXPECT_EQ(before, 0U);
      continue;
    }
    const std::vector<std::uint32_t> numbers = numbers_in(taken.back().body);
    EXPECT_EQ(numbers, from_to(0, static_cast<std::uint32_t>(numbers.size()))) << size;
    EXPECT_GE(numbers.size(), before);
    before = numbers.size();
  }
  EXPECT_GT(before, 100U);
}

TEST_F(UploadTest, DamagedChunksAreSetAsideAndTheOthersSent) {
  no_server();
  options_.chunk_age = 0ns;
  options_.finish = 0ns;
  start();
  for (int i = 0; i < 6; ++i) write(100);
  finish();
  const fs::path spool = options_.spool;
  const std::vector<std::string> names = files();
  std::string bytes = content(spool / names[1]);
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 0x55);
  std::ofstream(spool / names[1], std::ios::binary) << bytes;
  std::ofstream(spool / names[2], std::ios::binary) << "no zstd at all";
  std::ofstream(spool / names[3], std::ios::binary).flush();
  fs::resize_file(spool / names[4], fs::file_size(spool / names[4]) - 3);
  std::string part = names[5].substr(0, names[5].rfind('-')) + ".part";
  part[11] = '9';
  std::ofstream(spool / part, std::ios::binary) << std::string(100, '\0');
  std::ofstream(spool / "notes.txt") << "of somebody else";
  serve();
  options_.finish = 20s;
  start();
  write(10);
  finish();
  EXPECT_THAT(files("damaged"), SizeIs(10)) << "five, with their reasons";
  EXPECT_EQ(count("damaged"), 5U);
  EXPECT_THAT(content(spool / "damaged" / (names[2] + ".reason")), HasSubstr("at byte 0"));
  std::vector<std::uint32_t> expected = from_to(0, 100);
  std::ranges::copy(from_to(500, 610), std::back_inserter(expected));
  EXPECT_EQ(numbers_in(server_->taken()), expected);
  EXPECT_THAT(files(), ElementsAre("notes.txt"));
}

TEST_F(UploadTest, AFileThatIsTakenAwayDoesNotStopTheOthers) {
  no_server();
  options_.chunk_age = 0ns;
  start();
  write(10);
  write(10);
  EXPECT_TRUE(eventually([&] { return receipts_.done() == 2; }));
  fs::remove(fs::path(options_.spool) / files()[0]);
  serve();
  finish();
  EXPECT_EQ(numbers_in(server_->taken()), from_to(10, 20));
  EXPECT_EQ(context_->dropped_for("damaged"), 10U);
  EXPECT_EQ(context_->handled_items(), 10U);
}

TEST_F(UploadTest, AFolderIsForOneProcess) {
  no_server();
  fs::create_directory(options_.spool);
  const Descriptor other(
      ::open((fs::path(options_.spool) / "lock").c_str(), O_RDWR | O_CREAT, 0600));
  ASSERT_EQ(::flock(other.get(), LOCK_EX), 0);
  try {
    start();
    FAIL() << "nothing was thrown";
  } catch (const ConfigError& error) {
    EXPECT_EQ(error.option(), "spool");
    EXPECT_THAT(error.what(), HasSubstr("in use by another process"));
  }
  ::flock(other.get(), LOCK_UN);
  EXPECT_NO_THROW(start());
}

class FullSpoolTest : public UploadTest {
 protected:
  FullSpoolTest() {
    options_.chunk_bytes = 64_KiB;
    options_.flush_bytes = 16_KiB;
    options_.spool_bytes = 512_KiB;
    options_.keep_rejected = 128_KiB;
  }
  /// 200 packets of 1000 bytes that do not compress, 20 times: 4 MB.
  void overfill() {
    for (int i = 0; i < 20; ++i) {
      write(200, 1000);
      EXPECT_LE(spooled(), options_.spool_bytes.bytes);
    }
  }
};

TEST_F(FullSpoolTest, DropsTheOldest) {
  no_server();
  start();
  overfill();
  EXPECT_GT(context_->dropped_for("spool-full"), 2000U);
  EXPECT_TRUE(logged("the spool is full: dropped"));
  EXPECT_THAT(context_->failing("spool"), ::testing::HasSubstr("the spool is full"));
  serve();
  finish();
  const std::vector<std::uint32_t> numbers = numbers_in(server_->taken());
  EXPECT_EQ(numbers, from_to(4000 - static_cast<std::uint32_t>(numbers.size()), 4000));
  EXPECT_GT(numbers.size(), 300U);
  EXPECT_EQ(context_->dropped_for("spool-full") + numbers.size(), 4000U);
  EXPECT_EQ(context_->handled_items(), numbers.size());
  EXPECT_EQ(receipts_.done(), 20);
}

TEST_F(FullSpoolTest, DropsTheNewest) {
  options_.when_full = WhenFull::drop_newest;
  no_server();
  start();
  overfill();
  EXPECT_GT(context_->dropped_for("spool-full"), 2000U);
  serve();
  EXPECT_TRUE(eventually([&] { return count("uploaded") >= 5; }));
  const std::uint64_t before = context_->dropped_for("spool-full");
  write(50, 1000);
  finish();
  EXPECT_EQ(context_->dropped_for("spool-full"), before) << "there is room again";
  EXPECT_TRUE(eventually([&] { return context_->failing("spool").empty(); }));
  std::vector<std::uint32_t> numbers = numbers_in(server_->taken());
  EXPECT_EQ(before + numbers.size(), 4050U);
  EXPECT_EQ(context_->handled_items(), numbers.size());
  const std::size_t old = numbers.size() - 50;
  EXPECT_EQ(std::vector(numbers.begin() + static_cast<std::ptrdiff_t>(old), numbers.end()),
            from_to(4000, 4050));
  EXPECT_GT(old, 300U);
  EXPECT_EQ(std::vector(numbers.begin(), numbers.begin() + 300), from_to(0, 300));
  EXPECT_EQ(receipts_.done(), 21);
}

TEST_F(FullSpoolTest, RejectedChunksGoFirst) {
  serve([](const Request&) { return Reply{400}; });
  start();
  write(300, 1000);
  EXPECT_TRUE(eventually([&] { return count("rejected") == 4; }));
  EXPECT_THAT(files("rejected"), ::testing::Not(IsEmpty()));
  server_.reset();
  overfill();
  EXPECT_THAT(files("rejected"), IsEmpty());
}

TEST_F(FullSpoolTest, WithoutAFolderItIsBoundedToo) {
  options_.spool = "tmp";
  no_server();
  options_.finish = 0ns;
  start();
  for (int i = 0; i < 20; ++i) write(200, 1000);
  finish();
  const std::map<std::string, std::uint64_t> dropped = context_->all_dropped();
  EXPECT_GT(dropped.at("spool-full"), 2000U);
  EXPECT_LE(dropped.at("unsent"), 512U);
  EXPECT_EQ(dropped.at("spool-full") + dropped.at("unsent"), 4000U);
  EXPECT_EQ(receipts_.done(), 20);
}

TEST_F(FullSpoolTest, ChunksOfAnEarlierRunAreNotOnTheBooksOfThisOne) {
  no_server();
  options_.finish = 0ns;
  start();
  write(300, 1000);
  finish();
  start();
  overfill();
  EXPECT_EQ(count("dropped-recovered"), 300U);
  finish();
  EXPECT_EQ(context_->handled_items() + context_->dropped_for("spool-full"), 4000U);
}

TEST_F(FullSpoolTest, AFullDiskIsCountedAndGoesOnWhenThereIsRoom) {
  const fs::path disk = folder_ / "disk";
  fs::create_directory(disk);
  if (::mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=512k") != 0) {
    GTEST_SKIP() << "needs the right to mount a small disk";
  }
  struct Unmount {
    const fs::path& disk;
    ~Unmount() { ::umount2(disk.c_str(), MNT_DETACH); }
  } const unmount{disk};
  for (const WhenFull when : {WhenFull::drop_oldest, WhenFull::drop_newest}) {
    options_.spool = disk / "spool";
    options_.spool_bytes = 1_GiB;
    options_.when_full = when;
    no_server();
    next_ = 0;
    start();
    for (int i = 0; i < 20; ++i) write(200, 1000);
    const bool newest = when == WhenFull::drop_newest;
    EXPECT_GT(context_->dropped_for(newest ? "disk-full" : "spool-full"), 2000U);
    serve();
    EXPECT_TRUE(eventually([&] { return count("uploaded") >= 3; }));
    write(10, 1000);
    finish();
    std::vector<std::uint32_t> numbers = numbers_in(server_->taken());
    ASSERT_GT(numbers.size(), 200U);
    EXPECT_EQ(numbers.back(), 4009U);
    std::uint64_t dropped = 0;
    for (const auto& [reason, n] : context_->all_dropped()) dropped += n;
    EXPECT_EQ(dropped + numbers.size(), 4010U);
    EXPECT_EQ(context_->handled_items(), numbers.size());
    EXPECT_THAT(files(), IsEmpty());
    server_.reset();
  }
  EXPECT_EQ(receipts_.pending() + receipts_.failed(), 0);
}

TEST(ChunkName, IsReadAsItIsWritten) {
  ChunkName name{17, "20260102T030405Z", std::string(32, 'a'), std::nullopt};
  EXPECT_EQ(name.file(), "000000000017-20260102T030405Z-" + std::string(32, 'a') + ".part");
  EXPECT_FALSE(ChunkName::parse(name.file())->packets);
  name.packets = 99;
  const auto read = ChunkName::parse(name.file());
  ASSERT_TRUE(read);
  EXPECT_EQ(read->number, 17U);
  EXPECT_EQ(read->time, name.time);
  EXPECT_EQ(read->id, name.id);
  EXPECT_EQ(read->packets, 99U);
  for (const char* other : {"", "lock", "x.part", "1-2-3.part", "1-2-3-4.pcap.zst", ".pcap.zst"}) {
    EXPECT_FALSE(ChunkName::parse(other)) << other;
  }
}

}  // namespace
}  // namespace millrace
