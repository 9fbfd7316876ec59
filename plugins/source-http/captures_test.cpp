#include <cstdlib>
#include <fstream>
#include <random>
#include <sstream>

#include "capture_reader.h"
#include "http_fixture.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

/// What source-pcap's reader finds in a file.
struct Read {
  std::vector<Collector::Seen> packets;
  bool good = true;
};

Read read(const fs::path& path) {
  Read read;
  testing::Recorder<Packet> recorder;
  Output<Packet> out(recorder);
  try {
    PacketBatcher batcher(512, 65536);
    Gate gate(0, {});
    const auto reader = open_capture(path, 262144, {});
    read.good = reader != nullptr;
    while (reader && reader->step(out, batcher, gate) == CaptureReader::Step::more) {
    }
    const Census& census = gate.census();
    if (census.packets() != 0 && census.of_unknown_link() == census.packets()) read.good = false;
  } catch (const std::runtime_error&) {
    read.good = false;
  }
  std::uint32_t number = 0;
  for (const Packet& p : recorder.items()) {
    read.packets.push_back({"agent",
                            "",
                            number++,
                            p.time.time_since_epoch().count(),
                            p.length,
                            static_cast<std::uint16_t>(p.link),
                            {reinterpret_cast<const char*>(p.data), p.captured}});
  }
  return read;
}

TEST_F(HttpTest, RealCapturesGiveThePacketsThatTheirFilesGive) {
  const char* given = std::getenv("MILLRACE_SHARED");
  const char* source = std::getenv("MILLRACE_SOURCE");
  const fs::path folder =
      (given != nullptr ? fs::path(given)
                        : fs::path(source != nullptr ? source : ".") / ".." / "shared") /
      "captures";
  if (!fs::is_directory(folder)) GTEST_SKIP() << "no captures in " << folder;
  start();
  Client one = client();
  std::minstd_rand random(7);
  std::size_t good = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (!entry.is_regular_file() || entry.file_size() == 0) continue;
    std::ifstream in(entry.path(), std::ios::binary);
    std::stringstream content;
    content << in.rdbuf();
    const std::string body = content.str();
    one.send(
        "POST /v1/captures HTTP/1.1\r\nHost: x\r\nMillrace-Agent: agent\r\n"
        "Transfer-Encoding: chunked\r\n\r\n");
    for (std::size_t at = 0; at < body.size();) {
      const std::string piece = body.substr(at, 1 + random() % 20000);
      at += piece.size();
      char length[20];
      std::snprintf(length, sizeof length, "%zx\r\n", piece.size());
      one.send(length + piece + "\r\n");
    }
    one.send("0\r\n\r\n");
    const Reply reply = one.receive();
    const Read expected = read(entry.path());
    EXPECT_EQ(reply.status, expected.good ? 200 : 400) << entry.path() << reply.body;
    auto seen = next_.seen();
    ASSERT_EQ(seen.size(), expected.packets.size()) << entry.path();
    for (std::size_t i = 0; i < expected.packets.size(); ++i) {
      Collector::Seen& packet = seen[i];
      packet.chunk.clear();
      ASSERT_TRUE(packet == expected.packets[i]) << entry.path() << " packet " << i;
    }
    next_.forget();
    good += expected.good ? 1 : 0;
    if (one.hears(0ms)) ADD_FAILURE() << "the connection must stay";
  }
  EXPECT_GT(good, 100U);
  EXPECT_EQ(count("connections"), 1U);
}

}  // namespace
}  // namespace millrace
