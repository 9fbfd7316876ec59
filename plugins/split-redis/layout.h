#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "millrace/decode.h"
#include "millrace/packet.h"
#include "millrace/session.h"
#include "millrace/ticket.h"

namespace millrace {

// What is in Redis, byte by byte. All numbers are big-endian; scripts.cpp reads and writes the same
// with Redis's `struct` library, which has no 64-bit numbers, so times are two halves there.

/// Names a five-tuple of an agent: XXH3-128 of both. 38 bytes of five-tuple, and the agent's name
/// of any length, would make keys three times as long.
using FlowKey = std::array<std::uint8_t, 16>;
[[nodiscard]] FlowKey flow_key(const FiveTuple& key, std::string_view agent);
[[nodiscard]] std::string_view view(const FlowKey& key);
/// Names the fragments of one IP packet of an agent, likewise.
[[nodiscard]] FlowKey fragment_id(FragmentKey key, std::string_view agent);
/// Stands for a chunk in the marks of five-tuples; 0: no chunk.
[[nodiscard]] std::uint64_t chunk_hash(std::string_view chunk);
/// As long as no two processes may have the same.
[[nodiscard]] std::string random_bytes(std::size_t size);

inline constexpr std::size_t kFiveTupleBytes = 38;
void append_five_tuple(std::string& to, const FiveTuple& key);

template <class T>
void append_number(std::string& to, T value) {
  std::array<char, sizeof(T)> bytes;
  for (std::size_t i = sizeof(T); i-- > 0; value = static_cast<T>(value >> 8U)) {
    bytes[i] = static_cast<char>(value & 0xFFU);
  }
  to.append(bytes.data(), bytes.size());
}
inline void append_number(std::string& to, std::uint8_t value) { to += static_cast<char>(value); }
template <class T>
void append_double(std::string& to, T value) {
  append_number(to, std::bit_cast<std::uint64_t>(static_cast<double>(value)));
}
inline void append_time(std::string& to, Timestamp time) {
  append_number(to, static_cast<std::uint64_t>(time.time_since_epoch().count()));
}

/// Reads what the functions above write. What is not there reads as zero and makes `good` false.
class LayoutReader {
 public:
  explicit LayoutReader(std::string_view bytes) : bytes_(bytes) {}
  [[nodiscard]] std::string_view take(std::size_t size);
  template <class T>
  [[nodiscard]] T number() {
    std::uint64_t value = 0;
    for (const char c : take(sizeof(T))) value = value << 8U | static_cast<std::uint8_t>(c);
    return static_cast<T>(value);
  }
  [[nodiscard]] Timestamp time() {
    return Timestamp(Duration(static_cast<std::int64_t>(number<std::uint64_t>())));
  }
  [[nodiscard]] FiveTuple five_tuple();
  [[nodiscard]] bool good() const { return good_; }
  [[nodiscard]] std::size_t left() const { return bytes_.size(); }

 private:
  std::string_view bytes_;
  bool good_ = true;
};

/// The keys of one bucket. They share a hash tag, so that a Redis Cluster keeps them together.
class KeyNames {
 public:
  KeyNames(std::string_view prefix, std::uint32_t bucket)
      : tag_("{" + std::string(prefix) + ":" + std::to_string(bucket) + "}") {}
  [[nodiscard]] const std::string& tag() const { return tag_; }
  [[nodiscard]] std::string outbox() const { return tag_ + "o"; }
  /// The sessions that are not done, see session_script.h.
  [[nodiscard]] std::string index() const { return tag_ + "w"; }
  /// The session of a five-tuple while it takes packets, and once it takes no more.
  [[nodiscard]] std::string open(const FlowKey& flow) const { return key('s', view(flow)); }
  [[nodiscard]] std::string due(const FlowKey& flow) const { return key('d', view(flow)); }
  [[nodiscard]] std::string older(const FlowKey& flow) const { return key('x', view(flow)); }
  [[nodiscard]] std::string fragment(std::string_view id) const { return key('f', id); }

 private:
  [[nodiscard]] std::string key(char kind, std::string_view rest) const {
    std::string name = tag_;
    name += kind;
    name += rest;
    return name;
  }
  std::string tag_;
};

[[nodiscard]] inline std::uint32_t bucket_of(const FlowKey& flow, std::uint32_t buckets) {
  return buckets == 1 ? 0
                      : (std::uint32_t{flow[12]} << 24U | std::uint32_t{flow[13]} << 16U |
                         std::uint32_t{flow[14]} << 8U | std::uint32_t{flow[15]}) %
                            buckets;
}

/// A packet as it is kept: 33 bytes, then its bytes from the layer on.
/// u32 size of all, u8 flags, u16 l4, u16 l7 offset, i64 time, u32 length on the wire,
/// u32 number in its chunk, u64 chunk.
inline constexpr std::size_t kRecordHead = 33;
enum RecordFlag : std::uint8_t { kSrcIsLow = 1, kFragment = 2, kOpens = 4 };
struct Record {
  SessionPacket packet;
  std::uint8_t flags = 0;
  std::uint32_t length = 0;
  std::uint32_t number = 0;
  std::uint64_t chunk = 0;  ///< see chunk_hash
};
void append_record(std::string& to, const Record& record);
/// The records of one element of a session's list. Views into `element`. False if it is damaged.
[[nodiscard]] bool read_records(std::string_view element, std::vector<Record>& to);

inline constexpr std::uint8_t kStateVersion = 3;
/// What is known of a session, the fixed part of a five-tuple's state.
struct SessionHead {
  bool open = false;  ///< takes packets
  bool done = false;
  bool src_is_low = true;
  bool full = false;
  Layer layer = Layer::l7;
  std::uint32_t epoch = 0;
  std::uint32_t packets = 0;
  Timestamp first_seen;
  Timestamp last_seen;
  std::uint64_t bytes = 0;
  std::uint64_t payload_bytes = 0;
};
[[nodiscard]] std::optional<SessionHead> read_head(std::string_view state);

/// What names one of the sessions of a five-tuple: epoch and time of the first packet.
inline constexpr std::size_t kSessionMark = 12;
void append_session_mark(std::string& to, std::uint32_t epoch, Timestamp first_seen);

/// How an open session stands.
struct Standing {
  std::uint32_t packets = 0;
  std::uint32_t elements = 0;  ///< of its list
  Timestamp first;             ///< time of its first packet
  std::int64_t applied = -1;   ///< the highest number of the group's chunk
};

/// What the script of a batch answers, and keeps until its tickets are safe.
struct BatchReply {
  std::uint32_t stored = 0;
  std::uint32_t after_due = 0;
  std::uint32_t repeated = 0;
  std::uint32_t taken_back = 0;  ///< had been appended past the script
  std::uint32_t begun = 0;
  std::uint32_t wrong_type = 0;  ///< keys that were set aside
  std::string_view groups;  ///< one of GroupState for each, empty if it is only known from before
  std::vector<Standing> standings;  ///< of each group that is kGroupOpen, in order
  std::vector<Ticket> tickets;      ///< agents are views into the reply
};
enum GroupState : char {
  kGroupBegun = 'b',  ///< a session that holds just this group, and is open
  kGroupOpen = 'o',   ///< its session is open; see Standing
  kGroupDue = 'd',
  kGroupRefused = 'r',
};
[[nodiscard]] std::optional<BatchReply> read_reply(std::string_view reply);
/// The ticket of a member of the index, see session_script.h. The agent is a view into `member`.
[[nodiscard]] std::optional<Ticket> read_member(std::string_view member);

}  // namespace millrace
