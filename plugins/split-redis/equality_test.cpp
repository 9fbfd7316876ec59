// Sessions through Redis are those that SessionTable makes of the same packets.

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>

#include "redis_fixture.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

class EqualityTest : public RedisTest {
 protected:
  using Random = std::mt19937;

  int below(int n) { return std::uniform_int_distribution(0, n - 1)(random_); }

  /// A stream of an agent with everything that can go wrong.
  std::vector<Packet> stream(int count, bool jumps) {
    std::vector<Packet> packets;
    Duration now = std::chrono::milliseconds(below(10000));
    for (int i = 0; i < count; ++i) {
      const int step = below(100);
      now += step < 80   ? std::chrono::milliseconds(below(200))
             : step < 95 ? std::chrono::milliseconds(below(2000))
             : step < 98 ? std::chrono::milliseconds(below(12000))
                         : std::chrono::milliseconds(below(40000));
      // Some are earlier than those before them; nanoseconds keep ids apart.
      Duration at = now + Duration(below(1000000));
      if (below(10) == 0) at -= std::chrono::milliseconds(below(4000));
      // The clock is set back or ahead, and single packets have times of their own.
      if (jumps && below(150) == 0) {
        now += std::array<Duration, 4>{-1h, -24h, 1h, 24h}[static_cast<std::size_t>(below(4))];
      }
      if (jumps && below(60) == 0) {
        at = std::array<Duration, 4>{-1'700'000'000s, 24h * 365 * 80, at + 40s,
                                     at - 15min}[static_cast<std::size_t>(below(4))] +
             Duration(below(1000000));
      }
      PacketMaker::Spec spec;
      spec.tcp = below(2) == 0;
      const bool back = below(3) == 0;
      spec.src = back ? 2 : 1;
      spec.dst = back ? 1 : 2;
      const auto client = static_cast<std::uint16_t>(1000 + below(6));
      spec.src_port = back ? 80 : client;
      spec.dst_port = back ? client : 80;
      if (spec.tcp && below(8) == 0) spec.flags = kTcpSyn;
      spec.payload.resize(static_cast<std::size_t>(below(5) == 0 ? 0 : below(40)));
      for (char& c : spec.payload) c = static_cast<char>(below(256));
      if (below(12) == 0) {
        spec.id = static_cast<std::uint16_t>(below(4));
        spec.fragment = below(2) == 0 ? 0x2000 : 0x0002;
      }
      packets.push_back(below(30) == 0 ? maker_.raw(std::string(20, '\x11'), at)
                                       : maker_.make(spec, at));
    }
    return packets;
  }

  /// Cuts a stream into chunks.
  std::vector<std::vector<Packet>> chunks(const std::vector<Packet>& packets,
                                          const std::string& agent) {
    std::vector<std::vector<Packet>> out;
    for (std::size_t i = 0; i < packets.size();) {
      const std::size_t end =
          std::min(packets.size(), i + 1 + static_cast<std::size_t>(below(120)));
      const auto* origin = maker_.origin(agent, "chunk-" + std::to_string(out.size()));
      out.push_back(chunk({packets.begin() + static_cast<std::ptrdiff_t>(i),
                           packets.begin() + static_cast<std::ptrdiff_t>(end)},
                          origin));
      i = end;
    }
    return out;
  }

  void compare(const SeenMap& got, const SeenMap& expected) {
    for (const auto& [id, text] : expected) {
      const auto found = got.find(id);
      ASSERT_NE(found, got.end()) << "lost: " << text;
      ASSERT_EQ(found->second, text);
    }
    ASSERT_EQ(got.size(), expected.size());
  }

  Random random_{0};
};

TEST_F(EqualityTest, RandomStreamsOfTwoAgentsInChunksThroughTwoReceivers) {
  for (unsigned seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    random_.seed(seed);
    ask({"FLUSHALL"});
    options_.packets = static_cast<std::uint32_t>(1 + below(8));
    options_.delay = std::chrono::milliseconds(500 + below(5000));
    options_.idle = std::chrono::milliseconds(500 + below(12000));
    options_.keep = std::array{Layer::l2, Layer::l4, Layer::l7}[static_cast<std::size_t>(below(3))];
    options_.buckets = claim_options_.buckets = static_cast<std::uint32_t>(1 + below(3));
    options_.in_flight = static_cast<std::uint32_t>(1 + below(5));
    std::deque<std::vector<Packet>> work[2];
    std::vector<Packet> all;
    for (int agent = 0; agent < 2; ++agent) {
      // Both agents see the same five-tuples.
      const std::string name = agent == 0 ? "" : "agent-b";
      for (auto& one : chunks(stream(600, seed % 2 == 0), name)) {
        all.insert(all.end(), one.begin(), one.end());
        work[agent].push_back(std::move(one));
      }
    }
    const Oracle oracle(all, options_);
    std::vector<Ticket> tickets;
    std::uint64_t after_due = 0;
    std::uint64_t stored = 0;
    std::uint64_t lost = 0;
    std::uint64_t begun = 0;
    {
      Receiver receivers[2] = {Receiver(options_), Receiver(options_)};
      std::vector<Packet> batch;
      int last = 0;
      while (!work[0].empty() || !work[1].empty()) {
        const int agent = work[0].empty() ? 1 : work[1].empty() ? 0 : below(2);
        const int through = below(2);
        if (through != last) {  // what one has of an agent is done before another goes on
          receivers[last].give(std::exchange(batch, {}));
          receivers[last].tick();
          last = through;
        }
        for (const Packet& packet : work[agent].front()) {
          batch.push_back(packet);
          if (below(40) == 0) receivers[through].give(std::exchange(batch, {}));
        }
        work[agent].pop_front();
      }
      receivers[last].give(std::move(batch));
      for (Receiver& receiver : receivers) {
        receiver.flush();
        for (const Ticket& ticket : receiver.take_tickets()) tickets.push_back(ticket);
        EXPECT_EQ(receiver.receipts.pending(), 0);
        EXPECT_EQ(receiver.receipts.failed(), 0);
        EXPECT_EQ(receiver.context.dropped_for("repeated"), 0U);
        after_due += receiver.context.dropped_for("after-due");
        lost += receiver.context.dropped_for("lost-fragment");
        stored += receiver.context.handled_items();
        begun += receiver.context.counter("sessions").value();
      }
      std::ranges::shuffle(tickets, random_);
      compare(claim(tickets), oracle.sessions);
      if (HasFatalFailure()) return;
    }
    EXPECT_EQ(after_due, oracle.counts.after_due);
    EXPECT_EQ(lost, oracle.counts.lost_fragments);
    EXPECT_EQ(stored, oracle.counts.stored);
    EXPECT_EQ(begun, oracle.counts.sessions);
    EXPECT_EQ(claimed_unknown_, 0U);
    expect_every_key_expires();
    const auto left = kinds();
    EXPECT_EQ(waiting(), 0);
    EXPECT_FALSE(left.contains('h'));
    EXPECT_FALSE(left.contains('o'));
    EXPECT_FALSE(left.contains('t'));
  }
}

fs::path captures() {
  const char* source = std::getenv("MILLRACE_SOURCE");
  const char* given = std::getenv("MILLRACE_SHARED");
  return (given != nullptr ? fs::path(given)
                           : fs::path(source != nullptr ? source : ".") / ".." / "shared") /
         "captures";
}

/// The packets of a capture file in libpcap's classic format, as it is in memory.
std::vector<Packet> read_capture(const std::string& file) {
  std::vector<Packet> packets;
  const auto u32 = [&](std::size_t at, bool swapped) {
    std::uint32_t value = 0;
    std::memcpy(&value, file.data() + at, sizeof value);
    return swapped ? __builtin_bswap32(value) : value;
  };
  if (file.size() < 24) return packets;
  const std::uint32_t magic = u32(0, false);
  const bool swapped = magic == 0xD4C3B2A1 || magic == 0x4D3CB2A1;
  const bool nanoseconds = magic == 0xA1B23C4D || magic == 0x4D3CB2A1;
  if (!swapped && !nanoseconds && magic != 0xA1B2C3D4) return packets;  // pcapng and others
  const auto link = static_cast<LinkType>(u32(20, swapped) & 0xFFFFU);
  for (std::size_t at = 24; at + 16 <= file.size();) {
    Packet packet;
    packet.time = Timestamp(std::chrono::seconds(u32(at, swapped)) +
                            Duration(u32(at + 4, swapped)) * (nanoseconds ? 1 : 1000));
    packet.captured = u32(at + 8, swapped);
    packet.length = u32(at + 12, swapped);
    packet.link = link;
    packet.data = reinterpret_cast<const std::byte*>(file.data()) + at + 16;
    at += 16;
    if (packet.captured > file.size() - at) break;
    at += packet.captured;
    packets.push_back(packet);
  }
  return packets;
}

TEST_F(EqualityTest, RealCapturesInChunks) {
  std::error_code error;
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(captures(), error)) {
    if (entry.path().extension() == ".pcap" || entry.path().extension() == ".cap") {
      files.push_back(entry.path());
    }
  }
  if (files.empty()) GTEST_SKIP() << "no captures in " << captures();
  std::ranges::sort(files);
  int compared = 0;
  std::uint64_t sessions = 0;
  for (const fs::path& path : files) {
    std::ifstream stream(path, std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(stream), {}};
    const std::vector<Packet> packets = read_capture(bytes);
    if (packets.empty()) continue;
    SCOPED_TRACE(path.filename().string());
    std::vector<Packet> all;
    std::vector<Ticket> tickets;
    Receiver receiver(options_);
    const std::string agent = path.filename().string();
    for (auto& one : chunks(packets, agent)) {
      all.insert(all.end(), one.begin(), one.end());
      receiver.give(one);
    }
    receiver.flush();
    const Oracle oracle(all, options_);
    compare(claim(receiver.take_tickets()), oracle.sessions);
    if (HasFatalFailure()) return;
    EXPECT_EQ(receiver.context.handled_items(), oracle.counts.stored);
    EXPECT_EQ(receiver.context.dropped_for("after-due"), oracle.counts.after_due);
    EXPECT_EQ(receiver.context.counter("joined-fragments").value(), oracle.counts.joined_fragments);
    ++compared;
    sessions += oracle.sessions.size();
  }
  EXPECT_GT(compared, 50);
  EXPECT_GT(sessions, 1000U);
  EXPECT_EQ(waiting(), 0);
}

}  // namespace
}  // namespace millrace
