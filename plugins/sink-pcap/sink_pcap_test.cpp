#include "sink_pcap.h"

#include <array>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>
#include <unistd.h>

#include "millrace/testing.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

class SinkPcapTest : public ::testing::Test {
 protected:
  SinkPcapTest()
      : path_(fs::temp_directory_path() /
              ("sink-pcap-" + std::to_string(::getpid()) +
               ::testing::UnitTest::GetInstance()->current_test_info()->name())) {}
  ~SinkPcapTest() override { fs::remove(path_); }
  SinkPcapTest(const SinkPcapTest&) = delete;
  SinkPcapTest& operator=(const SinkPcapTest&) = delete;

  fs::path path_;
  std::array<std::byte, 4> bytes_ = {std::byte{1}, std::byte{2}, std::byte{3}, std::byte{4}};
};

TEST_F(SinkPcapTest, FileHasHeaderAndRecord) {
  SinkPcap sink({path_});
  testing::TestContext context;
  sink.open(context);
  Batch<Packet> batch(
      {{Timestamp(Duration(1000000002)), bytes_.data(), 4, 1500, LinkType::ethernet}});
  sink.write(batch);
  sink.flush();
  std::ifstream file(path_, std::ios::binary);
  const std::string content{std::istreambuf_iterator<char>(file), {}};
  ASSERT_EQ(content.size(), 24U + 16 + 4);
  EXPECT_EQ(content.substr(0, 8), std::string("\x4d\x3c\xb2\xa1\x02\0\x04\0", 8));
  EXPECT_EQ(content.substr(24, 16), std::string("\x01\0\0\0\x02\0\0\0\x04\0\0\0\xdc\x05\0\0", 16));
}

TEST_F(SinkPcapTest, PacketsOfAnotherLinkTypeAreRejected) {
  SinkPcap sink({path_});
  testing::TestContext context;
  sink.open(context);
  Batch<Packet> batch(
      {{{}, bytes_.data(), 4, 4, LinkType::ethernet}, {{}, bytes_.data(), 4, 4, LinkType::raw}});
  try {
    sink.write(batch);
    FAIL() << "nothing was thrown";
  } catch (const Rejected& error) {
    EXPECT_EQ(error.items(), std::vector<std::size_t>{1});
  }
}

TEST_F(SinkPcapTest, FullDiskIsTransientAtTheNextCall) {
  SinkPcap sink({"/dev/full"});
  testing::TestContext context;
  sink.open(context);
  Batch<Packet> batch({{{}, bytes_.data(), 4, 4, LinkType::ethernet}});
  sink.write(batch);
  EXPECT_THROW(sink.flush(), Transient);
}

}  // namespace
}  // namespace millrace
