#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "millrace/verdict.h"

#include "connection.h"
#include "existing_rows.h"

namespace millrace {

/// What became of rows that were given to be stored; the others were there already.
struct Outcomes {
  std::uint64_t stored = 0;
  std::uint64_t labelled = 0;
  OtherAnswers others;
};

/// Writes rows with statements that take one array for each column: rows that are new, labels of
/// rows that had none, labels instead of others. Every function that speaks to the server throws
/// ServerError.
class RowWriter {
 public:
  using Rows = std::span<const Verdict* const>;

  /// `connection` must outlive the writer.
  RowWriter(Connection& connection, std::string table, OnExisting on_existing)
      : connection_(connection), table_(std::move(table)), on_existing_(on_existing) {}

  /// After every connect. Shows whether this user may do what is needed, as it writes no rows.
  void prepare();
  /// In the transaction that is open; `rows` are in the order of their ids. `now` is when the
  /// labels were given.
  [[nodiscard]] Outcomes store(Rows rows, Timestamp now);

 private:
  void add_labels(Rows rows, Timestamp now, Outcomes& outcomes);
  void relabel(Rows rows, Timestamp now, Outcomes& outcomes);

  Connection& connection_;
  std::string table_;
  OnExisting on_existing_;
};

}  // namespace millrace
