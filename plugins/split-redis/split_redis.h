#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "millrace/fragment_cache.h"
#include "millrace/packet.h"
#include "millrace/plugin.h"
#include "millrace/stage.h"
#include "millrace/ticket.h"

#include "agents.h"
#include "call_window.h"
#include "known_flows.h"
#include "layout.h"
#include "packet_groups.h"
#include "server_watch.h"

namespace millrace {

struct SplitRedisOptions {
  std::string server = "redis://127.0.0.1:6379";
  std::string ca{};
  std::uint32_t packets = 24;
  Duration delay = std::chrono::seconds(10);
  Duration idle = std::chrono::seconds(60);
  Layer keep = Layer::l7;
  std::string prefix = "millrace";
  std::uint32_t buckets = 1;
  Duration expire = std::chrono::hours(1);
  Duration remember = std::chrono::minutes(5);
  ByteSize max_memory{};
  std::uint32_t batch = 16384;
  std::uint32_t in_flight = 4;
  Duration sweep = std::chrono::seconds(10);
  Duration sweep_after = std::chrono::minutes(1);
  std::uint32_t max_fragments = 4096;
  std::uint32_t known = 65536;
  Duration connect_timeout = std::chrono::seconds(5);
  Duration timeout = std::chrono::seconds(10);
};

/// Which announcements are safe downstream. Receipts are resolved on any thread, also after the
/// stage is gone.
class Announcements {
 public:
  using Id = std::pair<std::uint32_t, std::string>;  ///< bucket, 16 bytes

  /// A receipt for the tickets of `id` that resolves `input` after them.
  [[nodiscard]] static Receipt announce(const std::shared_ptr<Announcements>& self, Id id,
                                        Receipt input);
  /// The ids of a bucket that may be cleared, joined; each is given once.
  [[nodiscard]] std::string take_settled(std::uint32_t bucket);
  void settle(const Id& id);
  [[nodiscard]] bool any_settled();
  /// The ids of a bucket that are on their way, joined.
  [[nodiscard]] std::string open(std::uint32_t bucket);

 private:
  std::mutex mutex_;
  std::set<Id> open_;
  std::map<std::uint32_t, std::string> settled_;
  bool any_settled_ = false;
};

/// Groups packets into sessions in Redis, and tells of sessions by tickets. See README.md for what
/// is promised and layout.h and scripts.cpp for what is stored.
///
/// A batch becomes a few script calls (for each bucket) of its packets by session; several calls
/// are under way. A batch is taken as soon as its calls are in the window: from then on they are
/// sent until they are answered, and the script applies each once.
class SplitRedis final : public Transform<Packet, Ticket> {
 public:
  explicit SplitRedis(const SplitRedisOptions& options);

  static void check(const SplitRedisOptions& options, Findings& findings);
  void open(Context& context) override;
  void process(Batch<Packet>& in, Output<Ticket>& out) override;
  void flush(Output<Ticket>& out) override;
  void close() noexcept override;
  [[nodiscard]] Coalesce coalesce() const override;

 private:
  /// The agents of the batch at hand.
  struct BatchAgent {
    std::string_view name;
    KnownAgent* known = nullptr;
    std::vector<std::uint64_t> new_chunks;
  };
  struct Place {
    std::uint32_t agent = 0;
    std::uint64_t chunk = 0;
    std::int64_t sent = -1;  ///< the highest number of the chunk's packets that was here before
  };
  struct Drops {
    std::uint64_t lost_fragments = 0;
    std::uint64_t joined_fragments = 0;
    std::array<std::uint64_t, kDecodeKinds> undecodable{};
  };

  void decode_all(const Batch<Packet>& in);
  [[nodiscard]] Place place_of(const Origin* origin);
  void decode_one(std::size_t index, const BatchAgent& agent);
  void ask();
  [[nodiscard]] Timestamp touched_after(const KnownFlow* known, Timestamp latest) const;
  void count_jumps(const BatchAgent& agent);
  void group_all();
  [[nodiscard]] bool choose_thin();
  void take(Batch<Packet>& in);
  [[nodiscard]] Call begin_call(std::uint32_t bucket);
  [[nodiscard]] Call make_call(std::uint32_t bucket, std::span<const std::uint32_t>& left,
                               RedisCommand before);
  void begin_script(Call& call, RedisCommand& command, std::size_t groups);
  [[nodiscard]] static Call::Group group_of(const std::vector<DecodedPacket>& packets,
                                            const PacketGroup& group);
  void add_group(Call& call, RedisCommand& command, const std::vector<DecodedPacket>& packets,
                 const PacketGroup& group, std::uint8_t flags, const KnownFlow* known) const;
  void push(Call& call, RedisCommand& command, const PacketGroup& group, bool begins) const;
  [[nodiscard]] bool append(Call& call, RedisCommand& command, const PacketGroup& group,
                            KnownFlow& known);
  void ask_about(const FlowKey& flow, Timestamp touched);
  void note_open(const Call::Group& group, const Standing& standing, Timestamp touched,
                 std::uint64_t call);
  void choose(Call& call, RedisCommand& command, std::uint32_t index);
  void send(Call call, const Receipt& input);
  void learn(const Call& call, const BatchReply& reply);
  void keep_thin(Call& call, const PacketGroup& group);

  void answer(Output<Ticket>& out);
  void answer_sweep(const Call& call, RedisReply reply, Output<Ticket>& out);
  void send_refused(Call& call, std::string_view states);
  void check_appended(Call& call, const redisReply& transaction, bool again);
  void drain(Output<Ticket>& out);
  void push(Batch<Ticket> tickets, Output<Ticket>& out);
  void sweep(bool look);
  void forget_all();

  SplitRedisOptions options_;
  std::string run_;
  std::string settings_;
  std::vector<KeyNames> names_;
  std::vector<std::uint64_t> next_number_;  ///< of each bucket
  std::unique_ptr<CallWindow> window_;
  std::shared_ptr<Announcements> announcements_ = std::make_shared<Announcements>();

  KnownAgents agents_;
  FragmentCache fragments_;
  PacketGroups groups_;
  KnownFlows known_;
  std::uint64_t last_call_ = 0;
  Timestamp now_ = kNoTime;
  std::unordered_map<std::string, std::uint32_t> thin_in_flight_;  ///< flows, and in how many calls

  // Of the batch at hand; kept for their memory.
  std::vector<DecodedPacket> packets_;
  std::vector<Place> places_;
  std::vector<BatchAgent> batch_agents_;
  std::vector<std::pair<std::size_t, FlowKey>> unknown_fragments_;
  std::vector<std::pair<FlowKey, std::size_t>> first_fragments_;  ///< and the packets
  std::vector<char> thin_;
  struct Scripted {
    std::uint32_t group = 0;
    bool begins = false;             ///< a session is pushed by the transaction
    std::size_t records = 0;         ///< then: where its packets are in the transaction's pushes
    std::optional<KnownFlow> known;  ///< how its session stands, if that is known
  };
  std::vector<Scripted> scripted_;  ///< the groups of the call at hand that the script handles
  std::uint64_t batch_ = 0;
  Drops drops_;

  Timestamp watermark_ = kNoTime;
  Timestamp next_sweep_ = kNoTime;
  std::unique_ptr<ServerWatch> watch_;
  std::uint64_t times_emptied_ = 0;
  Context* context_ = nullptr;
  Counter* sessions_ = nullptr;
  Counter* joined_ = nullptr;
  Counter* announced_ = nullptr;
  Counter* swept_ = nullptr;
  Counter* calls_ = nullptr;
  Counter* thin_packets_ = nullptr;
  Counter* appended_ = nullptr;
  Counter* taken_back_ = nullptr;
  Counter* clock_jumps_ = nullptr;
  bool told_of_jump_ = false;
};

}  // namespace millrace
