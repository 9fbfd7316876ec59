#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hiredis/hiredis.h>

#include "millrace/session_table.h"
#include "millrace/testing.h"

#include "claim.h"
#include "split_redis.h"
#include "support/services.h"

namespace millrace {

using namespace std::chrono_literals;

/// Builds packets (raw IPv4); bytes and origins live as long as the builder.
class PacketMaker {
 public:
  struct Spec {
    std::uint8_t src = 1;
    std::uint8_t dst = 2;
    std::uint16_t src_port = 1000;
    std::uint16_t dst_port = 80;
    std::string payload = "0123456789";
    bool tcp = false;
    std::uint8_t flags = kTcpAck;
    std::uint16_t fragment = 0;  ///< the IPv4 field: flags and offset
    std::uint16_t id = 0;
  };

  Packet make(const Spec& spec, Duration at) {
    const bool later = (spec.fragment & 0x1FFFU) != 0;
    const std::size_t l4 = later ? 0 : spec.tcp ? 20 : 8;
    std::string f(20 + l4, 0);
    const auto put = [&f](std::size_t where, std::size_t value) {
      f[where] = static_cast<char>(value >> 8U);
      f[where + 1] = static_cast<char>(value);
    };
    f[0] = 0x45;
    put(2, f.size() + spec.payload.size());
    put(4, spec.id);
    put(6, spec.fragment);
    f[9] = spec.tcp ? 6 : 17;
    f[12] = f[16] = 10;
    f[15] = static_cast<char>(spec.src);
    f[19] = static_cast<char>(spec.dst);
    if (!later) {
      put(20, spec.src_port);
      put(22, spec.dst_port);
      if (spec.tcp) {
        f[32] = 0x50;
        f[33] = static_cast<char>(spec.flags);
      } else {
        put(24, spec.fragment == 0 ? 8 + spec.payload.size() : 0);
      }
    }
    return raw(f + spec.payload, at);
  }

  Packet raw(const std::string& bytes, Duration at) {
    const std::string& kept = bytes_.emplace_back(bytes);
    Packet packet;
    packet.time = Timestamp(1'700'000'000s + at);
    packet.data = reinterpret_cast<const std::byte*>(kept.data());
    packet.captured = packet.length = static_cast<std::uint32_t>(kept.size());
    packet.link = LinkType::ipv4;
    return packet;
  }

  const Origin* origin(const std::string& agent, const std::string& chunk) {
    return &origins_.emplace_back(Origin{agent, chunk});
  }

 private:
  std::deque<std::string> bytes_;
  std::deque<Origin> origins_;
};

/// Everything that is promised of a session, to be compared.
struct Seen {
  SessionInfo info;
  std::string agent;
  std::vector<std::tuple<std::int64_t, std::string, std::uint16_t, std::uint16_t, bool, bool>>
      packets;

  explicit Seen(const Session& session) : info(session.info), agent(session.info.agent) {
    for (const SessionPacket& p : session.packets) {
      packets.emplace_back(p.time.time_since_epoch().count(),
                           std::string(reinterpret_cast<const char*>(p.data), p.size), p.l4_offset,
                           p.l7_offset, p.from_src, p.fragment);
    }
  }
  [[nodiscard]] std::string text() const {
    std::string out = to_hex(info.id) + " epoch " + std::to_string(info.epoch) + " packets " +
                      std::to_string(info.packets) + " of " + std::to_string(packets.size()) +
                      " bytes " + std::to_string(info.bytes) + "/" +
                      std::to_string(info.payload_bytes) + " " + to_rfc3339(info.first_seen) + " " +
                      to_rfc3339(info.last_seen) + (info.src_is_low ? " low" : " high") +
                      (info.due == Due::full ? " full" : " not full") + " " + agent + ":";
    for (const auto& [time, data, l4, l7, from_src, fragment] : packets) {
      out += " " + std::to_string(time) + "," + std::to_string(std::hash<std::string>()(data)) +
             "," + std::to_string(l4) + "," + std::to_string(l7) + (from_src ? ">" : "<") +
             (fragment ? "f" : "");
    }
    return out;
  }
};

/// Sessions by id, as text. A session that is there twice says so.
using SeenMap = std::map<std::string, std::string>;
inline void add(SeenMap& to, const Session& session) {
  const Seen seen(session);
  std::string& place = to[to_hex(session.info.id)];
  place = place.empty() ? seen.text() : "TWICE " + place + " AND " + seen.text();
}

/// What SessionTable makes of the packets, each agent by itself.
struct Oracle {
  SeenMap sessions;
  SessionCounts counts;

  Oracle(const std::vector<Packet>& packets, const SplitRedisOptions& options) {
    std::map<std::string, std::vector<Packet>> by_agent;
    for (const Packet& p : packets)
      by_agent[p.origin != nullptr ? p.origin->agent : ""].push_back(p);
    const SessionTable::Emit emit = [&](const Session& session, std::uint64_t) {
      add(sessions, session);
    };
    for (const auto& [agent, list] : by_agent) {
      SessionTable table({.packets = options.packets,
                          .delay = options.delay,
                          .idle = options.idle,
                          .remember = options.remember,
                          .max_fragments = options.max_fragments,
                          .layer = options.keep,
                          .late = 24h * 365 * 200});  // nothing ends but by its own packets
      table.add(list, 0, emit);
      table.flush(emit);
      const SessionCounts& c = table.counts();
      counts.stored += c.stored;
      counts.after_due += c.after_due;
      counts.joined_fragments += c.joined_fragments;
      counts.lost_fragments += c.lost_fragments;
      counts.sessions += c.sessions;
      for (std::size_t i = 0; i < c.undecodable.size(); ++i) {
        counts.undecodable[i] += c.undecodable[i];
      }
    }
  }
};

/// Calls as the host does: again after Transient, for at most `patience`.
template <class F>
void persist(F call, std::chrono::milliseconds patience = 20s) {
  const auto until = std::chrono::steady_clock::now() + patience;
  while (true) {
    try {
      return call();
    } catch (const Transient&) {
      if (std::chrono::steady_clock::now() > until) throw;
      std::this_thread::sleep_for(10ms);
    }
  }
}

/// A receiver in operation.
class Receiver {
 public:
  explicit Receiver(const SplitRedisOptions& options)
      : stage_(std::make_unique<SplitRedis>(options)) {
    stage_->open(context);
  }
  Receiver(const Receiver&) = delete;
  Receiver& operator=(const Receiver&) = delete;
  ~Receiver() { close(); }

  void give(std::vector<Packet> packets) {
    Batch<Packet> batch(std::move(packets));
    batch.receipt = receipts.make();
    Output<Ticket> out(recorder);
    persist([&] { stage_->process(batch, out); });
    batch.receipt.done();
  }
  /// Time moves: waits for what is under way.
  void tick() {
    Batch<Packet> batch;
    Output<Ticket> out(recorder);
    persist([&] { stage_->process(batch, out); });
  }
  void flush() {
    Output<Ticket> out(recorder);
    persist([&] { stage_->flush(out); });
  }
  /// The tickets so far, safe downstream.
  std::vector<Ticket> take_tickets() {
    std::vector<Ticket> tickets;
    for (Batch<Ticket>& batch : recorder.batches) {
      for (Ticket ticket : batch.items) {
        ticket.agent = *agents_.insert(std::string(ticket.agent)).first;
        tickets.push_back(ticket);
      }
      batch.receipt.done();
    }
    recorder.batches.clear();
    return tickets;
  }
  void close() {
    if (stage_) stage_->close();
    stage_.reset();
  }
  [[nodiscard]] SplitRedis& stage() { return *stage_; }

  testing::TestContext context{"sessions"};
  testing::Recorder<Ticket> recorder;
  testing::WatchedReceipt receipts;

 private:
  std::unique_ptr<SplitRedis> stage_;
  std::set<std::string> agents_;
};

/// An analyser in operation.
class Claimer {
 public:
  explicit Claimer(const ClaimOptions& options) : stage_(std::make_unique<Claim>(options)) {
    stage_->open(context);
  }
  Claimer(const Claimer&) = delete;
  Claimer& operator=(const Claimer&) = delete;
  ~Claimer() { close(); }

  void give(std::vector<Ticket> tickets) {
    Batch<Ticket> batch(std::move(tickets));
    batch.receipt = receipts.make();
    Output<Session> out(recorder);
    persist([&] { stage_->process(batch, out); });
    batch.receipt.done();
  }
  /// The sessions so far, with `outcome` of what comes after.
  SeenMap take(Outcome outcome = Outcome::done) {
    SeenMap sessions;
    for (Batch<Session>& batch : recorder.batches) {
      for (const Session& session : batch.items) add(sessions, session);
      batch.receipt.resolve(outcome);
    }
    recorder.batches.clear();
    return sessions;
  }
  void wait(int resolved) const {
    const auto until = std::chrono::steady_clock::now() + 10s;
    while (receipts.done() + receipts.failed() < resolved) {
      ASSERT_LT(std::chrono::steady_clock::now(), until);
      std::this_thread::sleep_for(1ms);
    }
  }
  void close() {
    if (stage_) stage_->close();
    stage_.reset();
  }
  [[nodiscard]] Claim& stage() { return *stage_; }

  testing::TestContext context{"claim"};
  testing::Recorder<Session> recorder;
  testing::WatchedReceipt receipts;

 private:
  std::unique_ptr<Claim> stage_;
};

class RedisTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { start({}); }
  static void start(const testing::Services::Names& options) {
    services = std::make_unique<testing::Services>(testing::Services::Names{"redis"}, options);
  }
  static void TearDownTestSuite() { services.reset(); }
  void SetUp() override {
    if (!services->missing().empty()) GTEST_SKIP() << services->missing();
    options_.server = claim_options_.server = services->address("redis");
    redis_ = std::make_unique<RedisConnection>(parse_redis_url(options_.server), RedisTimeouts{});
    ask({"FLUSHALL"});
  }

  RedisReply ask(const std::vector<std::string>& words) {
    redis_->open();
    RedisCommand command;
    command.begin(words.size());
    for (const std::string& word : words) command.add(std::string_view(word));
    return redis_->call(command);
  }
  long long number(const std::vector<std::string>& words) { return ask(words)->integer; }
  std::vector<std::string> keys(const std::string& pattern = "*") {
    std::vector<std::string> names;
    const RedisReply reply = ask({"KEYS", pattern});
    for (std::size_t i = 0; i < reply->elements; ++i) {
      names.emplace_back(text_of(*reply->element[i]));
    }
    return names;
  }
  /// Of keys such as "{millrace:0}s...": the letter.
  static char kind(const std::string& key) { return key[key.find('}') + 1]; }
  std::map<char, int> kinds() {
    std::map<char, int> counts;
    for (const std::string& key : keys("{*")) ++counts[kind(key)];
    return counts;
  }
  /// Sessions whose packets are there.
  int waiting() {
    int count = 0;
    for (const std::string& key : keys("{*")) {
      if (std::string_view("sdh").find(kind(key)) != std::string_view::npos &&
          number({"LLEN", key}) > 1)
        ++count;
    }
    return count;
  }
  void expect_every_key_expires() {
    for (const std::string& key : keys("{*")) EXPECT_GT(number({"TTL", key}), 0) << key;
  }

  /// All sessions of the tickets, as one analyser gets them.
  SeenMap claim(const std::vector<Ticket>& tickets, std::size_t at_once = 50) {
    Claimer claimer(claim_options_);
    int batches = 0;
    SeenMap sessions;
    for (std::size_t i = 0; i < tickets.size(); i += at_once) {
      const std::size_t end = std::min(tickets.size(), i + at_once);
      claimer.give({tickets.begin() + static_cast<std::ptrdiff_t>(i),
                    tickets.begin() + static_cast<std::ptrdiff_t>(end)});
      for (auto& [id, text] : claimer.take()) {
        if (!sessions.emplace(id, text).second) sessions[id] += " AGAIN";
      }
      ++batches;
      claimer.wait(batches);
    }
    EXPECT_EQ(claimer.receipts.failed(), 0);
    claimed_done_ = claimer.context.dropped_for("already-done");
    claimed_unknown_ = claimer.context.dropped_for("unknown");
    return sessions;
  }

  static inline std::unique_ptr<testing::Services> services;
  SplitRedisOptions options_;
  ClaimOptions claim_options_;
  PacketMaker maker_;
  std::unique_ptr<RedisConnection> redis_;
  std::uint64_t claimed_done_ = 0;
  std::uint64_t claimed_unknown_ = 0;
};

/// Numbers the packets as those of one chunk.
inline std::vector<Packet> chunk(std::vector<Packet> packets, const Origin* origin) {
  for (std::uint32_t i = 0; i < packets.size(); ++i) {
    packets[i].origin = origin;
    packets[i].number = i;
  }
  return packets;
}

}  // namespace millrace
