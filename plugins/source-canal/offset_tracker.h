#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "millrace/receipt.h"

namespace millrace {

/// A partition of a topic.
struct Place {
  std::string topic;
  std::int32_t partition = 0;
  friend auto operator<=>(const Place&, const Place&) = default;
};

struct PlaceOffset {
  Place place;
  std::int64_t offset = 0;
  friend bool operator==(const PlaceOffset&, const PlaceOffset&) = default;
};

/// Which messages the batches under way hold, and from that which offset of each partition may be
/// committed: the one below which every batch is done. One thread.
class OffsetTracker {
 public:
  /// The messages of a partition that a batch holds, skipped ones included: from offset `first`,
  /// the next one after them is `next`. Batches are added in the order of their numbers.
  void add(std::uint64_t batch, const Place& place, std::int64_t first, std::int64_t next);

  /// What became of a batch. After a failure the partition's messages from that batch on are taken
  /// for not read: the answer says where to read each partition again. Batches of before a rewind
  /// or `forget` have no effect any more.
  std::vector<PlaceOffset> resolve(std::uint64_t batch, Outcome outcome);

  /// The partition is somebody else's now.
  void forget(const Place& place);

  /// What may be committed and has not been asked for; counts as asked for from now on.
  [[nodiscard]] std::vector<PlaceOffset> to_commit();
  /// The same, with what was asked for and not confirmed.
  [[nodiscard]] std::vector<PlaceOffset> unconfirmed(const std::optional<Place>& only = {}) const;
  void confirmed(const PlaceOffset& committed);
  void not_committed(const Place& place);

 private:
  struct Entry {
    std::uint64_t batch = 0;
    std::int64_t first = 0;
    std::int64_t next = 0;
    bool done = false;
  };
  struct Partition {
    std::deque<Entry> entries;
    std::int64_t ready = kNone;
    std::int64_t asked = kNone;
    std::int64_t confirmed = kNone;
  };
  static constexpr std::int64_t kNone = -1;

  std::map<Place, Partition> partitions_;
  std::map<std::uint64_t, std::vector<Place>> batches_;
};

}  // namespace millrace
