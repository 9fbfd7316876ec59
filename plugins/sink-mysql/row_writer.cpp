#include "row_writer.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>
#include <vector>

#include <fmt/format.h>

namespace millrace {

namespace {

/// Rows of one statement at most; more gains nothing, as measured, and one statement has 65535
/// parameters at most. A power of two: what is left over goes in statements of half as many, and so
/// on, so that few are ever prepared.
constexpr std::size_t kStatementRows = 512;
/// One row in a message without its texts, as parameters and as question marks; rounded up.
constexpr std::size_t kRowBytes = 512;

std::int64_t nanoseconds(Timestamp time) { return time.time_since_epoch().count(); }

std::string hex(const Address& address, std::uint8_t family) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  std::string text;
  for (std::size_t i = 0; i < (family == 4 ? 4U : address.size()); ++i) {
    text += kDigits[address[i] >> 4U];
    text += kDigits[address[i] & 0xFU];
  }
  return text;
}

/// The number of characters, or nothing if `text` is no UTF-8.
std::optional<std::size_t> characters(std::string_view text) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < text.size(); ++count) {
    const auto byte = [&](std::size_t at) { return static_cast<unsigned char>(text[at]); };
    const unsigned char lead = byte(i);
    const std::size_t size = lead < 0x80                    ? 1
                             : lead >= 0xC2 && lead <= 0xDF ? 2
                             : lead >= 0xE0 && lead <= 0xEF ? 3
                             : lead >= 0xF0 && lead <= 0xF4 ? 4
                                                            : 0;
    if (size == 0 || i + size > text.size()) return std::nullopt;
    for (std::size_t k = 1; k < size; ++k) {
      if ((byte(i + k) & 0xC0U) != 0x80) return std::nullopt;
    }
    // Longer than need be, half of a UTF-16 pair, beyond Unicode.
    if ((lead == 0xE0 && byte(i + 1) < 0xA0) || (lead == 0xED && byte(i + 1) > 0x9F) ||
        (lead == 0xF0 && byte(i + 1) < 0x90) || (lead == 0xF4 && byte(i + 1) > 0x8F)) {
      return std::nullopt;
    }
    i += size;
  }
  return count;
}

/// Why a text cannot be in its column, or nothing.
std::string misfit_of(std::string_view column, std::string_view text, std::size_t limit) {
  const auto count = characters(text);
  if (!count) return fmt::format("'{}' is no UTF-8", column);
  if (*count <= limit) return {};
  return fmt::format("'{}' has {} characters, its column takes {}", column, *count, limit);
}

/// Binds one row; `parameter` is the last one before it.
void bind(Connection::Statement& to, unsigned parameter, const Verdict& verdict, Timestamp now) {
  const SessionInfo& info = verdict.session;
  const Endpoints ends = endpoints(info);
  const auto confidence = static_cast<double>(verdict.confidence);
  const bool labelled = !verdict.label.empty();
  to.bind(++parameter, to_hex(info.id));
  to.bind(++parameter, info.agent);
  to.bind(++parameter, std::uint64_t{info.key.protocol});
  to.bind(++parameter, hex(ends.src, info.key.family));
  to.bind(++parameter, std::uint64_t{ends.src_port});
  to.bind(++parameter, hex(ends.dst, info.key.family));
  to.bind(++parameter, std::uint64_t{ends.dst_port});
  to.bind(++parameter, std::uint64_t{info.epoch});
  to.bind(++parameter, nanoseconds(info.first_seen));
  to.bind(++parameter, nanoseconds(info.last_seen));
  to.bind(++parameter, std::uint64_t{info.packets});
  to.bind(++parameter, info.bytes);
  to.bind(++parameter, info.payload_bytes);
  to.bind(++parameter, to_string(info.due));
  to.bind(++parameter, verdict.label);
  ++parameter;
  labelled&& verdict.label_index >= 0 ? to.bind(parameter, std::int64_t{verdict.label_index})
                                      : to.bind_null(parameter);
  ++parameter;
  labelled&& std::isfinite(confidence) ? to.bind(parameter, confidence) : to.bind_null(parameter);
  to.bind(++parameter, verdict.model);
  to.bind(++parameter, verdict.model_version);
  ++parameter;
  labelled ? to.bind(parameter, nanoseconds(now)) : to.bind_null(parameter);
}

/// Of a row of id, label, model and version, in which it stays.
StoredAnswer stored_answer(const Connection::Row& row) {
  const auto text = [&row](std::size_t column) {
    return row.at(column) ? std::string_view(*row.at(column)) : std::string_view();
  };
  return {text(1), text(2), text(3)};
}

}  // namespace

std::string misfit(const Verdict& verdict, const TextLimits& limits) {
  std::string why = misfit_of("agent", verdict.session.agent, limits.agent);
  if (why.empty()) why = misfit_of("label", verdict.label, limits.label);
  if (why.empty()) why = misfit_of("model", verdict.model, limits.model);
  if (why.empty()) why = misfit_of("model_version", verdict.model_version, limits.model_version);
  return why;
}

void RowWriter::try_out() {
  static_cast<void>(insert_statement(1));
  static_cast<void>(relabel_statement());
  static_cast<void>(connection_.query(fmt::format("SELECT session FROM `{}` LIMIT 0", table_)));
}

void RowWriter::forget() noexcept {
  inserts_.clear();
  relabel_.reset();
}

Outcomes RowWriter::store(Rows rows, Timestamp now) {
  Outcomes outcomes;
  while (!rows.empty()) {
    const Rows some = rows.first(statement_rows(rows));
    rows = rows.subspan(some.size());
    const std::uint64_t stored = insert(some, now);
    outcomes.stored += stored;
    if (stored < some.size()) add_labels(some, now, outcomes);
  }
  return outcomes;
}

/// How many of the first rows go into one statement.
std::size_t RowWriter::statement_rows(Rows rows) const {
  const auto fits = [&](std::size_t count) {
    std::size_t bytes = kRowBytes;
    for (const Verdict* row : rows.first(count)) {
      bytes += kRowBytes + row->session.agent.size() + row->label.size() + row->model.size() +
               row->model_version.size();
    }
    return bytes <= connection_.max_packet();
  };
  std::size_t count = std::min(kStatementRows, std::bit_floor(rows.size()));
  while (count > 1 && !fits(count)) count /= 2;
  return count;
}

std::uint64_t RowWriter::insert(Rows rows, Timestamp now) {
  Connection::Statement& statement = insert_statement(rows.size());
  unsigned parameter = 0;
  for (const Verdict* row : rows) {
    bind(statement, parameter, *row, now);
    parameter += kColumns.size();
  }
  return statement.run();
}

/// Unlike INSERT IGNORE the clause for rows that are there already leaves errors in the data
/// errors. Binary columns come as hexadecimal text, which no character set can spoil.
Connection::Statement& RowWriter::insert_statement(std::size_t rows) {
  if (const auto found = inserts_.find(rows); found != inserts_.end()) return found->second;
  std::string names;
  std::string row;
  for (const Column& column : kColumns) {
    const bool binary = column.type.find("BINARY") != std::string_view::npos;
    names += fmt::format("{}`{}`", names.empty() ? "" : ",", column.name);
    row += fmt::format("{}{}", row.empty() ? "(" : ",", binary ? "UNHEX(?)" : "?");
  }
  row += ')';
  std::string sql = fmt::format("INSERT INTO `{}` ({}) VALUES {}", table_, names, row);
  for (std::size_t i = 1; i < rows; ++i) sql += ',' + row;
  sql += " ON DUPLICATE KEY UPDATE `session` = `session`";
  return inserts_.emplace(rows, Connection::Statement(connection_, sql)).first->second;
}

/// Only a row that still is what it was found to be: another sink may have been faster.
Connection::Statement& RowWriter::relabel_statement() {
  if (!relabel_) {
    relabel_.emplace(connection_,
                     fmt::format("UPDATE `{}` SET label = ?, label_index = ?, confidence = ?, "
                                 "model = ?, model_version = ?, classified_at = ? "
                                 "WHERE session = UNHEX(?) AND label = ? AND model = ? AND "
                                 "model_version = ?",
                                 table_));
  }
  return *relabel_;
}

/// Gives their labels to rows that were there already: to those that have none, and as
/// `on_existing` says to others.
void RowWriter::add_labels(Rows rows, Timestamp now, Outcomes& outcomes) {
  std::string ids;
  for (const Verdict* row : rows) {
    if (row->label.empty()) continue;
    ids += fmt::format("{}X'{}'", ids.empty() ? "" : ",", to_hex(row->session.id));
  }
  if (ids.empty()) return;
  auto found = connection_.query(fmt::format(
      "SELECT LOWER(HEX(session)), label, model, model_version FROM `{}` WHERE session IN ({})",
      table_, ids));
  std::ranges::sort(found);
  Connection::Statement& statement = relabel_statement();
  const Verdict* before = nullptr;
  for (const Verdict* row : rows) {
    // Of a session that comes several times the first label counts.
    if (row->label.empty()) continue;
    const bool again = before != nullptr && before->session.id == row->session.id;
    before = row;
    if (again) continue;
    const std::string id = to_hex(row->session.id);
    const auto place = std::ranges::lower_bound(
        found, id, {}, [](const Connection::Row& columns) { return columns.at(0).value_or(""); });
    if (place == found.end() || place->at(0) != id) continue;
    const StoredAnswer answer = stored_answer(*place);
    if (!differs(answer, *row)) continue;
    const bool unlabelled_row = answer.label.empty();
    if (!unlabelled_row && !replaces(on_existing_, answer, *row)) {
      outcomes.others.add(false, answer, *row);
      continue;
    }
    const auto confidence = static_cast<double>(row->confidence);
    statement.bind(1, row->label);
    row->label_index >= 0 ? statement.bind(2, std::int64_t{row->label_index})
                          : statement.bind_null(2);
    std::isfinite(confidence) ? statement.bind(3, confidence) : statement.bind_null(3);
    statement.bind(4, row->model);
    statement.bind(5, row->model_version);
    statement.bind(6, nanoseconds(now));
    statement.bind(7, id);
    statement.bind(8, answer.label);
    statement.bind(9, answer.model);
    statement.bind(10, answer.model_version);
    if (statement.run() == 0) continue;
    if (unlabelled_row) {
      ++outcomes.labelled;
    } else {
      outcomes.others.add(true, answer, *row);
    }
  }
}

}  // namespace millrace
