#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "millrace/change.h"

#include "node_layout.h"
#include "zk_client.h"

namespace millrace {

/// Makes the nodes what the table says.
///
/// Nothing newer is overwritten: the nodes are looked at first, then the table is read again, and a
/// node is only changed if it still is as it was looked at. Whatever a node held then was in the
/// table before, so the table's value is at least as new; and who has changed the node since knows
/// better.
class Reconcile {
 public:
  using ReadTable = std::function<std::vector<Change::Row>()>;

  struct Result {
    std::size_t rows = 0;
    std::size_t bad_rows = 0;  ///< that give no node
    std::string fault;         ///< of the first of them
    std::size_t missing = 0;   ///< nodes that were made
    std::size_t different = 0;
    std::size_t superfluous = 0;     ///< that were deleted
    std::size_t left = 0;            ///< that changed meanwhile, or may not be changed
    std::vector<std::string> audit;  ///< one line for each node that was repaired
    bool table_is_empty = false;     ///< nothing was deleted, because there is no row at all

    [[nodiscard]] std::size_t repaired() const { return missing + different + superfluous; }
  };

  /// `remove`: superfluous nodes in a folder that the layout owns are deleted.
  Reconcile(ZkClient& client, const NodeLayout& layout, ReadTable read_table, bool remove)
      : client_(client), layout_(layout), read_table_(std::move(read_table)), remove_(remove) {}

  /// Throws Transient if ZooKeeper does not answer, and what `read_table` throws.
  Result run();

 private:
  using Values = std::map<std::string, std::string>;  ///< by path
  using Versions = std::map<std::string, std::int32_t>;
  static constexpr std::int32_t kMissing = -2;

  Values wanted();
  [[nodiscard]] Versions differences(const Values& values);
  void look_for_superfluous(const Values& values, Versions& versions);
  void repair(const std::string& path, std::int32_t version, const Values& values);
  ZkReply answered(ZkReply reply) const;

  ZkClient& client_;
  const NodeLayout& layout_;
  ReadTable read_table_;
  bool remove_;
  Result result_;
};

}  // namespace millrace
