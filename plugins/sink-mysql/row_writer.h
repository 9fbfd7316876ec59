#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>

#include "millrace/verdict.h"

#include "connection.h"
#include "existing_rows.h"
#include "schema.h"

namespace millrace {

/// What became of rows that were given to be stored; the others were there already.
struct Outcomes {
  std::uint64_t stored = 0;
  std::uint64_t labelled = 0;
  OtherAnswers others;
};

/// Why the verdict cannot be a row (the column and what is wrong), or nothing.
[[nodiscard]] std::string misfit(const Verdict& verdict, const TextLimits& limits);

/// Writes rows in as few statements as can be. Everything but `forget` throws ServerError.
class RowWriter {
 public:
  using Rows = std::span<const Verdict* const>;

  /// `connection` must outlive the writer.
  RowWriter(Connection& connection, std::string table, OnExisting on_existing)
      : connection_(connection), table_(std::move(table)), on_existing_(on_existing) {}

  /// Shows whether this user may do what is needed.
  void try_out();
  /// In the transaction that is open. `now` is when the labels were given.
  [[nodiscard]] Outcomes store(Rows rows, Timestamp now);
  /// Before the connection is closed: what was prepared goes with it.
  void forget() noexcept;

 private:
  [[nodiscard]] std::size_t statement_rows(Rows rows) const;
  [[nodiscard]] std::uint64_t insert(Rows rows, Timestamp now);
  void add_labels(Rows rows, Timestamp now, Outcomes& outcomes);
  [[nodiscard]] Connection::Statement& insert_statement(std::size_t rows);
  [[nodiscard]] Connection::Statement& relabel_statement();

  Connection& connection_;
  std::string table_;
  OnExisting on_existing_;
  std::map<std::size_t, Connection::Statement> inserts_;  ///< by number of rows
  std::optional<Connection::Statement> relabel_;
};

}  // namespace millrace
