#include "sink_dataset.h"

#include <array>

#include <gtest/gtest.h>
#include <unistd.h>

#include "millrace/testing.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

std::string content(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class SinkDatasetTest : public ::testing::Test {
 protected:
  SinkDatasetTest()
      : folder_(fs::temp_directory_path() / ("sink-dataset-" + std::to_string(::getpid()))) {}
  ~SinkDatasetTest() override { fs::remove_all(folder_); }
  SinkDatasetTest(const SinkDatasetTest&) = delete;
  SinkDatasetTest& operator=(const SinkDatasetTest&) = delete;
  fs::path folder_;
};

TEST_F(SinkDatasetTest, WritesIdxAndDropsSessionsWithoutPayload) {
  SinkDataset sink({.path = folder_, .label = "web", .bytes = 4});
  testing::TestContext context;
  sink.open(context);
  const std::array<std::byte, 3> bytes = {std::byte{1}, std::byte{2}, std::byte{3}};
  std::array<SessionPacket, 2> packets{};
  packets[0] = {{}, bytes.data(), 1, 0, 0, true, false};  // a keep-alive: left out
  packets[1] = {{}, bytes.data(), 3, 0, 0, true, false};
  Batch<Session> batch;
  batch.items.resize(2);
  batch.items[0].packets = packets;
  batch.items[1].packets = std::span(packets).first(1);
  sink.write(batch);
  // Whole before the end of the run.
  EXPECT_EQ(content(folder_ / "images-idx3-ubyte"),
            std::string("\0\0\x08\x03\0\0\0\x01\0\0\0\x02\0\0\0\x02\x01\x02\x03\0", 20));
  EXPECT_EQ(content(folder_ / "labels-idx1-ubyte"), std::string("\0\0\x08\x01\0\0\0\x01\0", 9));
  EXPECT_EQ(content(folder_ / "labels.txt"), "web\n");
  EXPECT_EQ(context.dropped_for("no-payload"), 1U);
}

TEST_F(SinkDatasetTest, TooHighALayerIsAnError) {
  SinkDataset sink({.path = folder_, .label = "web", .layer = Layer::l4});
  testing::TestContext context;
  sink.open(context);
  Batch<Session> batch;
  batch.items.resize(1);
  EXPECT_THROW(sink.write(batch), std::runtime_error);
}

}  // namespace
}  // namespace millrace
