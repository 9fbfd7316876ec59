#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "millrace/time.h"

#include "layout.h"

namespace millrace {

/// What was appended to a session's list past its state, so that the script can add it to the state
/// without reading it. Of one chunk it is known which packets the session had before.
struct Unrecorded {
  std::uint32_t elements = 0;  ///< of the list that are in the state, the state itself included
  std::uint32_t packets = 0;
  std::uint64_t bytes = 0;
  std::uint64_t payload = 0;
  Timestamp latest;  ///< time of a packet
  std::uint64_t chunk = 0;
  std::int64_t number = -1;  ///< of the chunk's last packet that the session was given
  bool mixed = false;        ///< some are of other chunks: all this says too little
};

/// How a five-tuple's session stood when this receiver last heard or foretold it.
struct KnownFlow {
  enum class Stand : std::uint8_t {
    unknown,
    open,   ///< packets can be appended without a look at the state
    due,    ///< the bytes of further packets need not be sent, only their heads
    asked,  ///< an answer is under way that tells
  };

  FlowKey flow{};
  Timestamp first;             ///< open: time of its first packet
  Timestamp touched;           ///< time of the latest packet sent
  Timestamp sent;              ///< wall clock
  std::uint64_t call = 0;      ///< asked, open: the last one in which the script looks at it
  std::uint32_t packets = 0;   ///< open: in the session
  std::uint32_t elements = 0;  ///< open: of its list
  Unrecorded unrecorded;       ///< open
  Stand stand = Stand::unknown;
};

/// It may be wrong where another receiver was there since; that is noticed: the script refuses
/// heads for which it needs the packets, and a list that is appended to tells its length. Where
/// there is no room the five-tuple not heard of for longest is forgotten.
class KnownFlows {
 public:
  explicit KnownFlows(std::size_t entries) : sets_(std::max<std::size_t>(entries / kWays, 1)) {
    entries_.resize(sets_ * kWays);
  }

  /// Null if nothing is known of it. Valid until the next `put`.
  [[nodiscard]] KnownFlow* find(const FlowKey& flow) {
    for (KnownFlow& entry : ways(flow)) {
      if (entry.stand != KnownFlow::Stand::unknown && entry.flow == flow) return &entry;
    }
    return nullptr;
  }
  [[nodiscard]] KnownFlow* find(const FlowKey& flow, KnownFlow::Stand stand) {
    KnownFlow* entry = find(flow);
    return entry != nullptr && entry->stand == stand ? entry : nullptr;
  }
  /// In the place of what was known of it.
  KnownFlow& put(const FlowKey& flow, KnownFlow::Stand stand, Timestamp touched, Timestamp now) {
    KnownFlow& entry = place(flow);
    entry = {};
    entry.flow = flow;
    entry.stand = stand;
    entry.touched = touched;
    entry.sent = now;
    return entry;
  }

 private:
  static constexpr std::size_t kWays = 4;

  [[nodiscard]] std::span<KnownFlow> ways(const FlowKey& flow) {
    std::uint64_t hash = 0;
    std::memcpy(&hash, flow.data() + 8, sizeof hash);
    return std::span(entries_).subspan(hash % sets_ * kWays, kWays);
  }
  [[nodiscard]] KnownFlow& place(const FlowKey& flow) {
    if (KnownFlow* entry = find(flow)) return *entry;
    return *std::ranges::min_element(ways(flow), {}, [](const KnownFlow& entry) {
      return entry.stand == KnownFlow::Stand::unknown ? Timestamp::min() : entry.sent;
    });
  }

  std::size_t sets_;
  std::vector<KnownFlow> entries_;
};

}  // namespace millrace
