#include "offset_tracker.h"

#include <algorithm>
#include <utility>

namespace millrace {

void OffsetTracker::add(std::uint64_t batch, const Place& place, std::int64_t first,
                        std::int64_t next) {
  partitions_[place].entries.push_back({batch, first, next});
  batches_[batch].push_back(place);
}

std::vector<PlaceOffset> OffsetTracker::resolve(std::uint64_t batch, Outcome outcome) {
  std::vector<PlaceOffset> rewinds;
  const auto found = batches_.find(batch);
  if (found == batches_.end()) return rewinds;
  const std::vector<Place> places = std::move(found->second);
  batches_.erase(found);
  for (const Place& place : places) {
    const auto partition = partitions_.find(place);
    if (partition == partitions_.end()) continue;
    std::deque<Entry>& entries = partition->second.entries;
    const auto entry = std::find_if(entries.begin(), entries.end(),
                                    [batch](const Entry& one) { return one.batch == batch; });
    if (entry == entries.end()) continue;
    if (outcome == Outcome::failed) {
      rewinds.push_back({place, entry->first});
      entries.erase(entry, entries.end());
      continue;
    }
    entry->done = true;
    while (!entries.empty() && entries.front().done) {
      partition->second.ready = std::max(partition->second.ready, entries.front().next);
      entries.pop_front();
    }
  }
  return rewinds;
}

void OffsetTracker::forget(const Place& place) { partitions_.erase(place); }

std::vector<PlaceOffset> OffsetTracker::to_commit() {
  std::vector<PlaceOffset> list;
  for (auto& [place, partition] : partitions_) {
    if (partition.ready <= partition.asked) continue;
    partition.asked = partition.ready;
    list.push_back({place, partition.ready});
  }
  return list;
}

std::vector<PlaceOffset> OffsetTracker::unconfirmed(const std::optional<Place>& only) const {
  std::vector<PlaceOffset> list;
  for (const auto& [place, partition] : partitions_) {
    if (only && *only != place) continue;
    if (partition.ready > partition.confirmed) list.push_back({place, partition.ready});
  }
  return list;
}

void OffsetTracker::confirmed(const PlaceOffset& committed) {
  const auto partition = partitions_.find(committed.place);
  if (partition == partitions_.end()) return;
  partition->second.confirmed = std::max(partition->second.confirmed, committed.offset);
}

void OffsetTracker::not_committed(const Place& place) {
  const auto partition = partitions_.find(place);
  if (partition != partitions_.end()) partition->second.asked = partition->second.confirmed;
}

}  // namespace millrace
