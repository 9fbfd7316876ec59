// Packets per second into Redis and RabbitMQ: the documented per-packet algorithm written literally
// (for each packet a round trip for SISMEMBER, one for ZCARD, one for ZADD, and a message, without
// confirms, for a session's first packet and for every one beyond the limit) against split-redis
// and queue-rabbit with everything confirmed. The same packets, the same servers; Redis is emptied.

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <random>
#include <string>
#include <vector>

#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <hiredis/hiredis.h>

#include "millrace/testing.h"

#include "publisher.h"
#include "rabbit_url.h"
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

/// Persistent messages, as rabbitmq-c's own examples publish them.
class Messages {
 public:
  explicit Messages(const std::string& url) : state_(amqp_new_connection()) {
    const RabbitUrl at = parse_rabbit_url(url);
    amqp_socket_t* socket = amqp_tcp_socket_new(state_);
    if (amqp_socket_open(socket, at.host.c_str(), at.port) != AMQP_STATUS_OK ||
        amqp_login(state_, at.vhost.c_str(), 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, at.user.c_str(),
                   at.password.c_str())
                .reply_type != AMQP_RESPONSE_NORMAL) {
      throw std::runtime_error("cannot connect to RabbitMQ");
    }
    amqp_channel_open(state_, 1);
    for (const char* queue : {"literal.full", "literal.new"}) {
      amqp_queue_declare(state_, 1, amqp_cstring_bytes(queue), 0, 1, 0, 0, amqp_empty_table);
    }
  }
  Messages(const Messages&) = delete;
  Messages& operator=(const Messages&) = delete;
  ~Messages() {
    close();
    amqp_destroy_connection(state_);
  }

  void publish(const char* queue, const std::string& body) {
    amqp_basic_properties_t properties{};
    properties._flags = AMQP_BASIC_DELIVERY_MODE_FLAG;
    properties.delivery_mode = 2;
    const amqp_bytes_t bytes{body.size(), const_cast<char*>(body.data())};
    if (amqp_basic_publish(state_, 1, amqp_empty_bytes, amqp_cstring_bytes(queue), 0, 0,
                           &properties, bytes) != AMQP_STATUS_OK) {
      throw std::runtime_error("RabbitMQ does not take a message");
    }
  }
  /// Waits until the broker has read everything; the queues go.
  void close() {
    if (!open_) return;
    open_ = false;
    for (const char* queue : {"literal.full", "literal.new"}) {
      amqp_queue_delete(state_, 1, amqp_cstring_bytes(queue), 0, 0);
    }
    amqp_connection_close(state_, AMQP_REPLY_SUCCESS);
  }

 private:
  amqp_connection_state_t state_;
  bool open_ = true;
};

double literal(const std::string& redis, const std::string& rabbit, const Traffic& traffic) {
  Server server(redis);
  server.empty();
  Messages messages(rabbit);
  const Moment since(server);
  for (const Packet& packet : traffic.packets) {
    Decoded decoded;
    if (decode(packet, decoded) != Decode::transport) continue;
    const std::string key(reinterpret_cast<const char*>(&decoded.key), sizeof decoded.key);
    if (server.number({"SISMEMBER", "done", key}) != 0) continue;
    const long long there = server.number({"ZCARD", key});
    if (there >= kLimit) {
      messages.publish("literal.full", key);
      continue;
    }
    const std::string score = std::to_string(packet.time.time_since_epoch().count());
    server.number(
        {"ZADD",
         key,
         score,
         {reinterpret_cast<const char*>(packet.data) + decoded.l7_offset, decoded.l7_size}});
    if (there == 0) messages.publish("literal.new", key);
  }
  messages.close();
  return report("literal", traffic, server, since);
}

/// Tickets straight into the queue's taking half.
class IntoQueue final : public Downstream {
 public:
  explicit IntoQueue(RabbitIn& queue) : queue_(queue) {}
  void push(BatchBase& batch) override {
    auto& tickets = static_cast<Batch<Ticket>&>(batch);
    queue_.write(tickets);
    tickets.receipt.done();
  }

 private:
  RabbitIn& queue_;
};

double millrace_way(const std::string& redis, const std::string& rabbit, const Traffic& traffic) {
  Server server(redis);
  server.empty();
  SplitRedisOptions options;
  options.server = redis;
  SplitRedis sessions(options);
  RabbitOptions queue_options;
  queue_options.server = rabbit;
  queue_options.name = "bench";
  RabbitIn queue(queue_options);
  testing::TestContext context;
  queue.open(context);
  sessions.open(context);
  IntoQueue into(queue);
  Output<Ticket> out(into);
  testing::WatchedReceipt receipts;
  const Moment since(server);
  for (std::size_t i = 0; i < traffic.packets.size(); i += options.batch) {
    const std::size_t end = std::min(traffic.packets.size(), i + options.batch);
    Batch<Packet> batch({traffic.packets.begin() + static_cast<std::ptrdiff_t>(i),
                         traffic.packets.begin() + static_cast<std::ptrdiff_t>(end)});
    batch.receipt = receipts.make();
    sessions.process(batch, out);
    batch.receipt.done();
  }
  sessions.flush(out);
  queue.flush();
  const double rate = report("millrace", traffic, server, since);
  sessions.close();
  queue.close();
  server.empty();
  return rate;
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 3) {
    std::fprintf(
        stderr,
        "usage: bench-server_literal redis://HOST:PORT amqp://HOST:PORT [PACKETS [BYTES [KIND]]]\n"
        "KIND: 0, 1 or 2: millrace alone, with this traffic alone.\n"
        "The Redis server is emptied.\n");
    return 2;
  }
  const std::string redis = arguments[1];
  const std::string rabbit = arguments[2];
  const std::size_t packets = count > 3 ? std::strtoull(arguments[3], nullptr, 10) : 200000;
  const std::size_t size = count > 4 ? std::strtoull(arguments[4], nullptr, 10) : 900;
  try {
    const int only = count > 5 ? std::atoi(arguments[5]) : -1;
    for (int kind = 0; kind < 3; ++kind) {
      if (only >= 0 && kind != only) continue;
      const Traffic traffic =
          kind == 0   ? make("short, all sessions at once", uniform(packets, packets), size)
          : kind == 1 ? make("short, 500 sessions at a time", uniform(packets, 500), size)
                      : make("long", zipf(packets), size);
      const double slow = only >= 0 ? 0 : literal(redis, rabbit, traffic);
      const double fast = millrace_way(redis, rabbit, traffic);
      if (only < 0) std::printf("  ratio %.1f\n", fast / slow);
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
