#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "millrace/change.h"
#include "millrace/context.h"

#include "binlog_options.h"
#include "gtid_position.h"
#include "mariadb_api.h"
#include "row_event.h"
#include "table_map.h"

namespace millrace {

/// What was read: changes in their order, and how far that was.
struct Portion {
  std::vector<Change> changes;
  std::size_t bytes = 0;
  /// The last transaction that ends here or before, if one has ended. Changes of one that has not
  /// may stand behind it.
  std::optional<GtidPosition> position;

  [[nodiscard]] bool empty() const { return changes.empty() && !position; }
  void append(Portion more);
};

/// Makes changes of the events of a binary log. One thread.
///
/// Changes are given on when their transaction is committed; of a larger one than `batch` before.
/// An event that tells of a change of a wanted table and cannot be read ends the run by
/// std::runtime_error, or is counted and logged, as `on_bad` says.
class BinlogDecoder {
 public:
  /// Completes a table map (see ColumnCatalog); throws std::runtime_error if it does not fit.
  using Describe = std::function<void(TableMap&)>;

  BinlogDecoder(const BinlogOptions& options, Context& context, Describe describe);

  /// The next event comes from a new connection, which reads behind `position`. What is open of a
  /// transaction is forgotten: it comes again.
  void begin(std::optional<GtidPosition> position);
  /// Behind the last transaction that has ended; none if that is not known yet.
  [[nodiscard]] const std::optional<GtidPosition>& position() const noexcept { return position_; }

  void take(const MARIADB_RPL_EVENT& event);
  /// An event that the client library cannot read.
  void take_unknown(std::string_view problem);
  [[nodiscard]] Portion portion();

 private:
  struct OpenTransaction {
    Gtid gtid;
    bool single = false;    ///< ends with its first statement
    bool prepared = false;  ///< XA: whether it is committed is told later
    std::vector<Change> changes;
    std::size_t bytes = 0;
  };
  struct Known {
    TableMap map;
    bool wanted = false;
    std::string problem;  ///< not empty: why its rows cannot be read
  };

  void take_gtid(const MARIADB_RPL_EVENT& event);
  void take_list(const MARIADB_RPL_EVENT& event);
  void take_table(const MARIADB_RPL_EVENT& event);
  void take_rows(const MARIADB_RPL_EVENT& event);
  void take_statement(std::string_view statement);
  void take_changing_statement(std::string_view statement);
  void warn_of_rows_that_went(std::string_view statement);
  void commit();
  void roll_back();
  void give_on();
  [[nodiscard]] bool wants(const std::string& database, const std::string& table) const;
  void unreadable(const std::string& what);

  const std::uint32_t batch_;
  const OnBad on_bad_;
  std::set<std::string, std::less<>> tables_;
  Context* context_;
  Describe describe_;
  Counter* transactions_;

  std::optional<GtidPosition> position_;
  std::optional<OpenTransaction> open_;
  std::map<std::uint64_t, Known> known_;  ///< of the tables that the log has told of, by id
  Portion portion_;
};

}  // namespace millrace
