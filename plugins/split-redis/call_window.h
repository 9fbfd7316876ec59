#pragma once

#include <cstdint>
#include <deque>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "millrace/receipt.h"

#include "connection.h"
#include "packet_groups.h"

namespace millrace {

/// A script call that is under way, with what its answer is needed for.
struct Call {
  static constexpr std::size_t kNoMark = std::numeric_limits<std::size_t>::max();

  /// The groups that were sent without their packets, and what is needed to send them with them.
  struct Kept {
    std::vector<std::uint32_t> numbers;  ///< of the groups in the call, ascending
    std::vector<PacketGroup> groups;     ///< their packets are in `packets`
    std::vector<DecodedPacket> packets;
    std::shared_ptr<const void> storage;
  };
  struct Group {
    FlowKey flow{};
    Timestamp first;   ///< time of the first packet
    Timestamp latest;  ///< and of the latest
    std::uint64_t chunk = 0;
    std::uint32_t last_number = 0;
    std::uint32_t packets = 0;
  };
  /// A group that is appended without a look at its session's state.
  struct Appended {
    Group group;
    std::uint32_t place = 0;     ///< of its answer in the transaction's
    std::uint32_t elements = 0;  ///< of the list then
    std::uint32_t head_bytes = 0;
  };

  /// Where in `bytes` it is what was sent of a group with which a session was to begin.
  struct Begun {
    std::uint32_t number = 0;  ///< of the group in the call
    std::size_t records = 0;
    std::size_t record_bytes = 0;
    std::size_t head = 0;
    std::size_t head_bytes = 0;
  };

  /// How a session stands that begins with the group and holds nothing else.
  [[nodiscard]] static Standing as_begun(const Group& group) {
    return {group.packets, 2, group.first, group.last_number};
  }

  std::uint32_t bucket = 0;
  std::uint64_t number = 0;    ///< of the bucket's calls
  std::uint64_t sequence = 0;  ///< of all calls
  std::string id;              ///< 16 bytes; empty: a sweep
  std::string bytes;
  std::size_t first_mark = kNoMark;  ///< where in `bytes` it says that nothing before is unanswered
  std::size_t commands_before = 0;   ///< whose answers only have to be no errors
  Receipt receipt;
  std::uint32_t packets = 0;  ///< of `groups`
  std::vector<Group> groups;
  Kept kept;
  std::uint32_t pushes = 0;  ///< commands of the transaction that push
  std::string pushed;        ///< for each element that they push its list's flow, in order
  std::vector<Begun> begun;
  std::vector<Appended> appended;
  std::string heads;  ///< of `appended`, one after the other
};

/// The calls of one receiver that are under way, in order, on one connection that is made anew when
/// it is lost: then everything unanswered is sent again, which the scripts can tell.
class CallWindow {
 public:
  CallWindow(RedisAddress address, RedisTimeouts timeouts, Counter* reconnects)
      : connection_(std::move(address), timeouts, reconnects) {}

  /// Connects if necessary and sends what is unanswered. Throws Transient.
  void ready();
  /// Takes the call over and sends it. If that fails it is sent by the next `ready`.
  void push(Call call);
  [[nodiscard]] std::size_t size() const { return calls_.size(); }
  [[nodiscard]] bool answered() const { return !calls_.empty() && connection_.readable(); }
  /// The oldest call and its answer; waits for it. Throws Transient, and has not taken it then.
  [[nodiscard]] std::pair<Call, RedisReply> pop();
  /// One command while nothing is under way.
  [[nodiscard]] RedisReply ask(const RedisCommand& command);
  /// For several commands while nothing is under way.
  [[nodiscard]] RedisConnection& connection() { return connection_; }

 private:
  void mark(Call& call, bool first);

  RedisConnection connection_;
  std::deque<Call> calls_;
};

}  // namespace millrace
