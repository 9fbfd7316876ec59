#include "distinct_rows.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <utility>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace millrace {

bool DistinctRows::add(std::span<const std::uint8_t> features, std::string_view label,
                       const SessionInfo& session) {
  auto name = labels_.find(label);
  if (name == labels_.end()) {
    name = labels_.emplace(label, static_cast<std::uint32_t>(labels_.size())).first;
  }
  Key key{XXH3_64bits_withSeed(features.data(), features.size(), seed_),
          {features.begin(), features.end()}};
  if (rows_.size() >= most_ && std::prev(rows_.end())->first < key) {
    ++beyond_;
    return false;
  }
  const auto [place, fresh] = rows_.try_emplace(std::move(key));
  Row& row = place->second;
  const RowSession now{session.id, session.key, session.src_is_low};
  if (fresh) row.label = name->second;
  if (fresh || now.id < row.session.id) row.session = now;
  row.ambiguous |= row.label != name->second;
  ++row.sessions;
  if (rows_.size() > most_) {
    beyond_ += std::prev(rows_.end())->second.sessions;
    rows_.erase(std::prev(rows_.end()));
  }
  return fresh;
}

std::vector<std::size_t> DistinctRows::rows_by_label() const {
  std::vector<std::size_t> counts(labels_.size());
  for (const auto& [key, row] : rows_) {
    if (!row.ambiguous) ++counts[row.label];
  }
  return counts;
}

DataSplit DistinctRows::split(double dev_share) const {
  DataSplit split;
  split.beyond = beyond_;
  const std::vector<std::size_t> counts = rows_by_label();
  std::vector<std::size_t> for_dev(counts.size());
  std::vector<std::uint32_t> places(counts.size(), kNowhere);
  for (const auto& [name, number] : labels_) {
    if (counts[number] == 0) {
      split.without.push_back(name);
      continue;
    }
    places[number] = static_cast<std::uint32_t>(split.labels.size());
    split.labels.push_back(name);
    const double share = dev_share * static_cast<double>(counts[number]);
    for_dev[number] = std::min(static_cast<std::size_t>(std::lround(share)), counts[number] - 1);
  }
  for (const auto& [key, row] : rows_) {
    if (row.ambiguous) {
      split.ambiguous += row.sessions;
      continue;
    }
    split.duplicates += row.sessions - 1;
    std::size_t& left = for_dev[row.label];
    auto& part = left != 0 ? split.dev : split.train;
    if (left != 0) --left;
    part.push_back({key.features, places[row.label], &row.session});
  }
  return split;
}

}  // namespace millrace
