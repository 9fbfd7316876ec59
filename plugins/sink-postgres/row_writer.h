#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "millrace/verdict.h"

#include "connection.h"

namespace millrace {

/// What became of rows that were given to be stored; the others were there already.
struct Outcomes {
  std::uint64_t stored = 0;
  std::uint64_t labelled = 0;
};

/// Writes rows with two statements, each of which takes one array for each column: rows that are
/// new, and labels of rows that had none. Every function that speaks to the server throws
/// ServerError.
class RowWriter {
 public:
  using Rows = std::span<const Verdict* const>;

  /// `connection` must outlive the writer.
  RowWriter(Connection& connection, std::string table)
      : connection_(connection), table_(std::move(table)) {}

  /// After every connect. Shows whether this user may do what is needed, as it writes no rows.
  void prepare();
  /// In the transaction that is open; `rows` are in the order of their ids. `now` is when the
  /// labels were given.
  [[nodiscard]] Outcomes store(Rows rows, Timestamp now);

 private:
  [[nodiscard]] std::uint64_t fill_in(Rows rows, Timestamp now);

  Connection& connection_;
  std::string table_;
};

}  // namespace millrace
