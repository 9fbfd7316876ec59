#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "millrace/session.h"

namespace millrace {

/// Which session a row was made of.
struct RowSession {
  SessionId id{};
  FiveTuple key;
  bool src_is_low = true;
};

struct LabelledRow {
  std::string_view features;
  std::uint32_t label = 0;  ///< in DataSplit::labels
  const RowSession* session = nullptr;
};

/// What is written: views into the DistinctRows it was made of.
struct DataSplit {
  std::vector<std::string> labels;   ///< by name; those that have a row
  std::vector<std::string> without;  ///< labels of which no row is left
  std::vector<LabelledRow> train;
  std::vector<LabelledRow> dev;

  // Sessions: kept + duplicates + ambiguous + beyond are all that were added.
  std::uint64_t duplicates = 0;  ///< a row with the same features and label is kept
  std::uint64_t ambiguous = 0;   ///< the same features have another label too
  std::uint64_t beyond = 0;      ///< there was no room
};

/// Sessions as rows of features, each different row once.
///
/// Rows are in the order of a hash of features and seed, so what comes out depends on the sessions
/// alone and not on their order. Of more than `most` different rows those with the lowest hashes
/// are kept: a random sample. Memory: for each row its features and about 200 bytes.
class DistinctRows {
 public:
  DistinctRows(std::uint64_t seed, std::size_t most) : seed_(seed), most_(most) {}

  /// Whether the row is new and was kept.
  bool add(std::span<const std::uint8_t> features, std::string_view label,
           const SessionInfo& session);

  /// Of each class the share `dev_share` of the rows, rounded, is for dev, but never all.
  [[nodiscard]] DataSplit split(double dev_share) const;

  [[nodiscard]] std::size_t labels() const { return labels_.size(); }

 private:
  struct Key {
    std::uint64_t hash = 0;
    std::string features;
    friend auto operator<=>(const Key&, const Key&) = default;
  };
  struct Row {
    std::uint32_t label = 0;
    bool ambiguous = false;
    std::uint64_t sessions = 0;
    RowSession session;  ///< of these sessions the one with the lowest id
  };
  static constexpr std::uint32_t kNowhere = ~0U;

  [[nodiscard]] std::vector<std::size_t> rows_by_label() const;

  std::uint64_t seed_;
  std::size_t most_;
  std::map<std::string, std::uint32_t, std::less<>> labels_;  ///< numbered as they came
  std::map<Key, Row> rows_;
  std::uint64_t beyond_ = 0;
};

}  // namespace millrace
