#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "millrace/time.h"

#include "layout.h"

namespace millrace {

/// Five-tuples whose session was due when this receiver last heard of it, so that the bytes of
/// further packets need not be sent. It may be wrong (another receiver has begun a session since):
/// then the script refuses the group, and it is sent again with its packets. A place for each hash
/// value, the last one wins.
class DueCache {
 public:
  struct Entry {
    FlowKey flow{};
    bool used = false;
    Timestamp touched;  ///< clock of the last packet sent
    Timestamp sent;     ///< wall clock
  };

  explicit DueCache(std::size_t entries = std::size_t{1} << 16U) : entries_(entries) {}

  [[nodiscard]] Entry* find(const FlowKey& flow) {
    Entry& entry = place(flow);
    return entry.used && entry.flow == flow ? &entry : nullptr;
  }
  void put(const FlowKey& flow, Timestamp touched, Timestamp now) {
    Entry& entry = place(flow);
    if (entry.used && entry.flow == flow) touched = std::max(touched, entry.touched);
    entry = {flow, true, touched, now};
  }
  void remove(const FlowKey& flow) {
    Entry& entry = place(flow);
    if (entry.used && entry.flow == flow) entry.used = false;
  }

 private:
  Entry& place(const FlowKey& flow) {
    std::uint64_t hash = 0;
    std::memcpy(&hash, flow.data() + 8, sizeof hash);
    return entries_[hash % entries_.size()];
  }

  std::vector<Entry> entries_;
};

}  // namespace millrace
