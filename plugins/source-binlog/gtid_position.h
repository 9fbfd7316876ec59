#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace millrace {

/// A transaction of MariaDB's binary log: `domain-server-sequence`.
struct Gtid {
  std::uint32_t domain = 0;
  std::uint32_t server = 0;
  std::uint64_t sequence = 0;
  friend bool operator==(const Gtid&, const Gtid&) = default;
};

/// How far a binary log has been read: the last transaction of every replication domain.
class GtidPosition {
 public:
  /// Reads `0-1-27,1-2-3`; an empty text is the position before the first transaction. Throws
  /// std::invalid_argument.
  [[nodiscard]] static GtidPosition parse(std::string_view text);

  void advance(const Gtid& last) { last_[last.domain] = last; }
  [[nodiscard]] std::string to_string() const;
  friend bool operator==(const GtidPosition&, const GtidPosition&) = default;

 private:
  std::map<std::uint32_t, Gtid> last_;  ///< by domain
};

}  // namespace millrace
