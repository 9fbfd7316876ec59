// Packets per second into Redis: the documented per-packet algorithm written literally (for each
// packet a round trip for SISMEMBER, one for ZCARD, one for ZADD) and split-redis, with the same
// packets on the same server, which is emptied. Nothing is published by either; what split-redis
// announces is acknowledged at once.

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <random>
#include <string>
#include <vector>

#include <hiredis/hiredis.h>

#include "millrace/testing.h"

#include "split_redis.h"

namespace {

using namespace millrace;
using SteadyClock = std::chrono::steady_clock;

constexpr int kLimit = 24;

struct Traffic {
  const char* name = "";
  std::vector<std::string> frames;
  std::vector<Packet> packets;
};

/// `flows` says to which five-tuple each packet belongs.
Traffic make(const char* name, const std::vector<std::uint32_t>& flows, std::size_t size) {
  Traffic traffic;
  traffic.name = name;
  std::mt19937 random(1);
  std::vector<std::uint32_t> counts(1U << 16U);
  std::size_t surplus = 0;
  for (std::size_t i = 0; i < flows.size(); ++i) {
    std::string frame(28 + size, 0);
    frame[0] = 0x45;
    frame[2] = static_cast<char>(frame.size() >> 8U);
    frame[3] = static_cast<char>(frame.size());
    frame[9] = 17;
    frame[12] = frame[16] = 10;
    frame[19] = 1;
    frame[20] = static_cast<char>(flows[i] >> 8U);
    frame[21] = static_cast<char>(flows[i]);
    frame[24] = static_cast<char>((size + 8) >> 8U);
    frame[25] = static_cast<char>(size + 8);
    for (std::size_t at = 28; at < frame.size(); ++at) frame[at] = static_cast<char>(random());
    if (++counts[flows[i]] > kLimit) ++surplus;
    traffic.frames.push_back(std::move(frame));
  }
  for (std::size_t i = 0; i < flows.size(); ++i) {
    Packet packet;
    packet.time = Timestamp(std::chrono::seconds(1700000000) + std::chrono::microseconds(i));
    packet.data = reinterpret_cast<const std::byte*>(traffic.frames[i].data());
    packet.captured = packet.length = static_cast<std::uint32_t>(traffic.frames[i].size());
    packet.link = LinkType::ipv4;
    traffic.packets.push_back(packet);
  }
  std::printf("%s: %zu packets of %zu bytes, %.0f %% beyond the %dth of their session\n", name,
              flows.size(), size,
              100.0 * static_cast<double>(surplus) / static_cast<double>(flows.size()), kLimit);
  return traffic;
}

/// 10 packets a session; `active` sessions at a time.
std::vector<std::uint32_t> uniform(std::size_t packets, std::size_t active) {
  std::mt19937 random(2);
  std::vector<std::uint32_t> flows;
  std::vector<std::pair<std::uint32_t, int>> open;
  std::uint32_t next = 0;
  while (flows.size() < packets) {
    while (open.size() < active && next * 10U < packets) open.emplace_back(next++, 10);
    const std::size_t i = random() % open.size();
    flows.push_back(open[i].first);
    if (--open[i].second == 0) {
      open[i] = open.back();
      open.pop_back();
    }
  }
  return flows;
}

/// Zipf's law over 20,000 sessions.
std::vector<std::uint32_t> zipf(std::size_t packets) {
  std::mt19937 random(3);
  std::vector<double> weights;
  for (int rank = 1; rank <= 20000; ++rank) weights.push_back(1.0 / rank);
  std::discrete_distribution<std::uint32_t> pick(weights.begin(), weights.end());
  std::vector<std::uint32_t> flows(packets);
  for (auto& flow : flows) flow = pick(random);
  return flows;
}

class Server {
 public:
  explicit Server(const std::string& url) : connection_(parse_redis_url(url), RedisTimeouts{}) {
    connection_.open();
  }
  long long number(const std::vector<std::string_view>& words) {
    RedisCommand command;
    command.begin(words.size());
    for (const auto word : words) command.add(word);
    return connection_.call(command)->integer;
  }
  void empty() { number({"FLUSHALL"}); }
  double cpu() {
    RedisCommand command;
    command.put(std::string_view("INFO"), std::string_view("cpu"));
    const RedisReply reply = connection_.call(command);
    const std::string text(text_of(*reply));
    const auto value = [&](const char* name) {
      return std::atof(text.c_str() + text.find(name) + std::string(name).size());
    };
    return value("used_cpu_sys:") + value("used_cpu_user:");
  }

 private:
  RedisConnection connection_;
};

/// Seconds of processor time and of time at a moment.
struct Moment {
  explicit Moment(Server& server) : redis(server.cpu()) {}
  double redis;
  std::clock_t own = std::clock();
  SteadyClock::time_point time = SteadyClock::now();
};

double report(const char* what, const Traffic& traffic, Server& server, const Moment& since) {
  const double seconds = std::chrono::duration<double>(SteadyClock::now() - since.time).count();
  const double own = static_cast<double>(std::clock() - since.own) / CLOCKS_PER_SEC;
  const auto count = static_cast<double>(traffic.packets.size());
  std::printf("  %-8s %9.0f packets/s  (us a packet: %.1f here, %.1f of Redis)\n", what,
              count / seconds, 1e6 * own / count, 1e6 * (server.cpu() - since.redis) / count);
  std::fflush(stdout);
  return count / seconds;
}

double literal(const std::string& url, const Traffic& traffic, std::size_t most) {
  Server server(url);
  server.empty();
  Traffic part;
  part.packets.assign(traffic.packets.begin(),
                      traffic.packets.begin() +
                          static_cast<std::ptrdiff_t>(std::min(most, traffic.packets.size())));
  const Moment since(server);
  for (const Packet& packet : part.packets) {
    Decoded decoded;
    if (decode(packet, decoded) != Decode::transport) continue;
    const std::string key(reinterpret_cast<const char*>(&decoded.key), sizeof decoded.key);
    if (server.number({"SISMEMBER", "done", key}) != 0) continue;
    if (server.number({"ZCARD", key}) >= kLimit) continue;  // here it would publish
    const std::string score = std::to_string(packet.time.time_since_epoch().count());
    server.number(
        {"ZADD",
         key,
         score,
         {reinterpret_cast<const char*>(packet.data) + decoded.l7_offset, decoded.l7_size}});
  }
  return report("literal", part, server, since);
}

double split(const std::string& url, const Traffic& traffic) {
  Server server(url);
  server.empty();
  SplitRedisOptions options;
  options.server = url;
  SplitRedis stage(options);
  testing::TestContext context;
  stage.open(context);
  testing::Recorder<Ticket> recorder;
  Output<Ticket> out(recorder);
  const Moment since(server);
  for (std::size_t i = 0; i < traffic.packets.size(); i += options.batch) {
    const std::size_t end = std::min(traffic.packets.size(), i + options.batch);
    Batch<Packet> batch({traffic.packets.begin() + static_cast<std::ptrdiff_t>(i),
                         traffic.packets.begin() + static_cast<std::ptrdiff_t>(end)});
    stage.process(batch, out);
    for (auto& tickets : recorder.batches) tickets.receipt.done();
    recorder.batches.clear();
  }
  stage.flush(out);
  for (auto& tickets : recorder.batches) tickets.receipt.done();
  stage.close();
  const double rate = report("split", traffic, server, since);
  server.empty();
  return rate;
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 2) {
    std::fprintf(stderr,
                 "usage: bench-redis_literal redis://HOST:PORT [PACKETS [BYTES [LITERAL]]]\n"
                 "LITERAL: packets for the literal algorithm, 0: none. "
                 "The server is emptied.\n");
    return 2;
  }
  const std::string url = arguments[1];
  const std::size_t packets = count > 2 ? std::strtoull(arguments[2], nullptr, 10) : 200000;
  const std::size_t size = count > 3 ? std::strtoull(arguments[3], nullptr, 10) : 900;
  const std::size_t most = count > 4 ? std::strtoull(arguments[4], nullptr, 10) : 50000;
  try {
    for (int kind = 0; kind < 3; ++kind) {
      const Traffic traffic =
          kind == 0   ? make("short, all sessions at once", uniform(packets, packets), size)
          : kind == 1 ? make("short, 500 sessions at a time", uniform(packets, 500), size)
                      : make("long", zipf(packets), size);
      const double slow = most == 0 ? 0 : literal(url, traffic, most);
      const double fast = split(url, traffic);
      if (most != 0) std::printf("  ratio %.1f\n", fast / slow);
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
