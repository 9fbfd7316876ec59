#include "row_writer.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <concepts>
#include <utility>
#include <vector>

#include <fmt/format.h>

namespace millrace {

namespace {

/// Rows of one statement at most; more gain nothing, as measured, and a statement must stay far
/// below the 1 GiB that the server takes.
constexpr std::size_t kStatementRows = 4096;

constexpr const char* kInsert = "insert";
constexpr const char* kFillIn = "fill_in";
constexpr const char* kFindOthers = "find_others";
constexpr const char* kRelabel = "relabel";

template <std::integral T>
void append_number(std::string& to, T number) {
  const auto bits = static_cast<std::make_unsigned_t<T>>(number);
  for (int shift = 8 * (static_cast<int>(sizeof(T)) - 1); shift >= 0; shift -= 8) {
    to += static_cast<char>(static_cast<unsigned char>(bits >> static_cast<unsigned>(shift)));
  }
}

/// The types of the arrays, as SQL and as the number of the element's type in pg_type.
struct ElementType {
  std::string_view name;
  std::uint32_t oid = 0;
};
constexpr ElementType kUuid{"uuid", 2950};
constexpr ElementType kText{"text", 25};
constexpr ElementType kInet{"inet", 869};
constexpr ElementType kInt4{"int4", 23};
constexpr ElementType kInt8{"int8", 20};
constexpr ElementType kFloat8{"float8", 701};

/// One parameter: an array in PostgreSQL's binary form, which no quoting can spoil.
class Array {
 public:
  explicit Array(const ElementType& type) : oid_(type.oid) {}

  void add(std::string_view bytes) {
    append_number(elements_, static_cast<std::int32_t>(bytes.size()));
    elements_ += bytes;
    ++count_;
  }
  template <std::integral T>
  void add_number(T number) {
    append_number(elements_, static_cast<std::int32_t>(sizeof(T)));
    append_number(elements_, number);
    ++count_;
  }
  void add_float(double number) { add_number(std::bit_cast<std::int64_t>(number)); }
  void add_null() {
    append_number(elements_, std::int32_t{-1});
    ++count_;
    has_null_ = true;
  }
  [[nodiscard]] std::string bytes() const {
    std::string all;
    append_number(all, std::int32_t{count_ == 0 ? 0 : 1});  // dimensions
    append_number(all, std::int32_t{has_null_ ? 1 : 0});
    append_number(all, oid_);
    if (count_ == 0) return all;
    append_number(all, count_);
    append_number(all, std::int32_t{1});  // the first index
    return all + elements_;
  }

 private:
  std::uint32_t oid_;
  std::int32_t count_ = 0;
  bool has_null_ = false;
  std::string elements_;
};

std::string_view bytes_of(const SessionId& id) {
  return {reinterpret_cast<const char*>(id.data()), id.size()};
}

/// As PostgreSQL sends an address: family, bits of the net, no net, length, bytes.
std::string inet(const Address& address, std::uint8_t family) {
  const bool v4 = family == 4;
  const std::size_t size = v4 ? 4 : address.size();
  std::string bytes{static_cast<char>(v4 ? 2 : 3), static_cast<char>(8 * size), '\0',
                    static_cast<char>(size)};
  return bytes.append(reinterpret_cast<const char*>(address.data()), size);
}

std::int64_t nanoseconds(Timestamp time) { return time.time_since_epoch().count(); }

/// How one column is filled.
struct Field {
  std::string_view column;
  ElementType type;
  bool of_label = false;  ///< comes with a label, also with one that comes later
  void (*add)(Array& to, const Verdict& verdict, Timestamp now) = nullptr;
};

constexpr std::array kFields{
    Field{"session", kUuid, false,
          [](Array& to, const Verdict& v, Timestamp) { to.add(bytes_of(v.session.id)); }},
    Field{"agent", kText, false,
          [](Array& to, const Verdict& v, Timestamp) { to.add(v.session.agent); }},
    Field{"protocol", kInt4, false,
          [](Array& to, const Verdict& v, Timestamp) {
            to.add_number(std::int32_t{v.session.key.protocol});
          }},
    Field{"src", kInet, false,
          [](Array& to, const Verdict& v, Timestamp) {
            to.add(inet(endpoints(v.session).src, v.session.key.family));
          }},
    Field{"src_port", kInt4, false,
          [](Array& to, const Verdict& v, Timestamp) {
            to.add_number(std::int32_t{endpoints(v.session).src_port});
          }},
    Field{"dst", kInet, false,
          [](Array& to, const Verdict& v, Timestamp) {
            to.add(inet(endpoints(v.session).dst, v.session.key.family));
          }},
    Field{"dst_port", kInt4, false,
          [](Array& to, const Verdict& v, Timestamp) {
            to.add_number(std::int32_t{endpoints(v.session).dst_port});
          }},
    Field{"epoch", kInt8, false,
          [](Array& to, const Verdict& v, Timestamp) {
            to.add_number(std::int64_t{v.session.epoch});
          }},
    Field{"first_seen", kInt8, false,
          [](Array& to, const Verdict& v, Timestamp) {
            to.add_number(nanoseconds(v.session.first_seen));
          }},
    Field{"last_seen", kInt8, false,
          [](Array& to, const Verdict& v, Timestamp) {
            to.add_number(nanoseconds(v.session.last_seen));
          }},
    Field{"packets", kInt8, false,
          [](Array& to, const Verdict& v, Timestamp) {
            to.add_number(std::int64_t{v.session.packets});
          }},
    Field{"bytes", kInt8, false,
          [](Array& to, const Verdict& v, Timestamp) { to.add_number(v.session.bytes); }},
    Field{"payload_bytes", kInt8, false,
          [](Array& to, const Verdict& v, Timestamp) { to.add_number(v.session.payload_bytes); }},
    Field{"reason", kText, false,
          [](Array& to, const Verdict& v, Timestamp) { to.add(to_string(v.session.due)); }},
    Field{"label", kText, true, [](Array& to, const Verdict& v, Timestamp) { to.add(v.label); }},
    Field{"label_index", kInt4, true,
          [](Array& to, const Verdict& v, Timestamp) {
            const bool known = !v.label.empty() && v.label_index >= 0;
            known ? to.add_number(v.label_index) : to.add_null();
          }},
    Field{"confidence", kFloat8, true,
          [](Array& to, const Verdict& v, Timestamp) {
            const bool known = !v.label.empty() && std::isfinite(v.confidence);
            known ? to.add_float(static_cast<double>(v.confidence)) : to.add_null();
          }},
    Field{"model", kText, true, [](Array& to, const Verdict& v, Timestamp) { to.add(v.model); }},
    Field{"model_version", kText, true,
          [](Array& to, const Verdict& v, Timestamp) { to.add(v.model_version); }},
    Field{"classified_at", kInt8, true,
          [](Array& to, const Verdict& v, Timestamp now) {
            v.label.empty() ? to.add_null() : to.add_number(nanoseconds(now));
          }},
};

bool in_insert(const Field& /*field*/) { return true; }
bool in_fill_in(const Field& field) { return field.of_label || field.column == "session"; }
bool in_find_others(const Field& field) {
  return field.column == "session" || field.column == "label" || field.column == "model" ||
         field.column == "model_version";
}

/// The arrays of the fields that `wanted` takes, as parameters of a statement.
std::vector<std::string> arrays(RowWriter::Rows rows, Timestamp now, bool (*wanted)(const Field&)) {
  std::vector<std::string> parameters;
  for (const Field& field : kFields) {
    if (!wanted(field)) continue;
    Array array(field.type);
    for (const Verdict* row : rows) field.add(array, *row, now);
    parameters.push_back(array.bytes());
  }
  return parameters;
}

/// Those of new labels, and of the answers that they replace.
std::vector<std::string> with_old_answers(RowWriter::Rows rows, Timestamp now,
                                          std::span<const StoredAnswer> old) {
  std::vector<std::string> parameters = arrays(rows, now, in_fill_in);
  for (const auto member :
       {&StoredAnswer::label, &StoredAnswer::model, &StoredAnswer::model_version}) {
    Array array(kText);
    for (const StoredAnswer& answer : old) array.add(answer.*member);
    parameters.push_back(array.bytes());
  }
  return parameters;
}

/// The names of these fields, and the arrays as a table.
struct Sql {
  std::string names;
  std::string table;
};
Sql sql_of(bool (*wanted)(const Field&), std::initializer_list<std::string_view> more = {}) {
  Sql sql;
  int parameter = 0;
  for (const Field& field : kFields) {
    if (!wanted(field)) continue;
    const std::string_view comma = parameter == 0 ? "" : ", ";
    sql.names += fmt::format("{}{}", comma, field.column);
    sql.table += fmt::format("{}${}::{}[]", comma, ++parameter, field.type.name);
  }
  for (const std::string_view name : more) {
    sql.names += fmt::format(", {}", name);
    sql.table += fmt::format(", ${}::text[]", ++parameter);
  }
  sql.table = fmt::format("unnest({}) AS given({})", sql.table, sql.names);
  return sql;
}

/// Of a row of id, label, model and version, in which it stays.
StoredAnswer stored_answer(const Connection::Row& row) {
  const auto text = [&row](std::size_t column) {
    return row.at(column) ? std::string_view(*row.at(column)) : std::string_view();
  };
  return {text(1), text(2), text(3)};
}

}  // namespace

void RowWriter::prepare() {
  const Sql insert = sql_of(in_insert);
  connection_.prepare(kInsert, fmt::format("INSERT INTO \"{0}\" ({1}) SELECT {1} FROM {2} "
                                           "ON CONFLICT (session) DO NOTHING",
                                           table_, insert.names, insert.table));
  std::string assignments;
  for (const Field& field : kFields) {
    if (!field.of_label) continue;
    assignments += fmt::format("{0}{1} = given.{1}", assignments.empty() ? "" : ", ", field.column);
  }
  connection_.prepare(kFillIn, fmt::format("UPDATE \"{0}\" AS row SET {1} FROM {2} WHERE "
                                           "row.session = given.session AND row.label = ''",
                                           table_, assignments, sql_of(in_fill_in).table));
  connection_.prepare(
      kFindOthers,
      fmt::format("SELECT replace(row.session::text, '-', ''), row.label, row.model, "
                  "row.model_version FROM \"{0}\" AS row JOIN {1} ON row.session = given.session "
                  "WHERE row.label <> '' AND (row.label, row.model, row.model_version) IS DISTINCT "
                  "FROM (given.label, given.model, given.model_version)",
                  table_, sql_of(in_find_others).table));
  // Only rows that still are what they were found to be: another sink may have been faster.
  connection_.prepare(
      kRelabel,
      fmt::format("UPDATE \"{0}\" AS row SET {1} FROM {2} WHERE row.session = given.session AND "
                  "row.label = given.old_label AND row.model = given.old_model AND "
                  "row.model_version = given.old_version "
                  "RETURNING replace(row.session::text, '-', '')",
                  table_, assignments,
                  sql_of(in_fill_in, {"old_label", "old_model", "old_version"}).table));
  static_cast<void>(connection_.run(kInsert, arrays({}, {}, in_insert)));
  static_cast<void>(connection_.run(kFillIn, arrays({}, {}, in_fill_in)));
  static_cast<void>(connection_.rows_of(kFindOthers, arrays({}, {}, in_find_others)));
  static_cast<void>(connection_.rows_of(kRelabel, with_old_answers({}, {}, {})));
}

Outcomes RowWriter::store(Rows rows, Timestamp now) {
  Outcomes outcomes;
  while (!rows.empty()) {
    const Rows some = rows.first(std::min(rows.size(), kStatementRows));
    rows = rows.subspan(some.size());
    const std::uint64_t stored = connection_.run(kInsert, arrays(some, now, in_insert));
    outcomes.stored += stored;
    if (stored < some.size()) add_labels(some, now, outcomes);
  }
  return outcomes;
}

/// Gives their labels to rows that were there already.
void RowWriter::add_labels(Rows rows, Timestamp now, Outcomes& outcomes) {
  // Of a session that comes several times the first label counts.
  std::vector<const Verdict*> labelled;
  for (const Verdict* row : rows) {
    const bool again = !labelled.empty() && labelled.back()->session.id == row->session.id;
    if (!row->label.empty() && !again) labelled.push_back(row);
  }
  if (labelled.empty()) return;
  outcomes.labelled += connection_.run(kFillIn, arrays(labelled, now, in_fill_in));
  relabel(labelled, now, outcomes);
}

/// `rows` are in the order of their ids, each once.
void RowWriter::relabel(Rows rows, Timestamp now, Outcomes& outcomes) {
  auto found = connection_.rows_of(kFindOthers, arrays(rows, now, in_find_others));
  if (found.empty()) return;
  std::ranges::sort(found);  // by id, as the rows are: locks are taken in one order
  std::vector<const Verdict*> chosen;
  std::vector<StoredAnswer> old;
  auto row = rows.begin();
  for (const Connection::Row& other : found) {
    row = std::ranges::find_if(row, rows.end(), [&](const Verdict* candidate) {
      return to_hex(candidate->session.id) == other.at(0).value_or("");
    });
    if (row == rows.end()) break;
    const StoredAnswer answer = stored_answer(other);
    if (replaces(on_existing_, answer, **row)) {
      chosen.push_back(*row);
      old.push_back(answer);
    } else {
      outcomes.others.add(false, answer, **row);
    }
  }
  if (chosen.empty()) return;
  auto changed = connection_.rows_of(kRelabel, with_old_answers(chosen, now, old));
  std::ranges::sort(changed);
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    if (std::ranges::binary_search(changed, Connection::Row{to_hex(chosen[i]->session.id)})) {
      outcomes.others.add(true, old[i], *chosen[i]);
    }
  }
}

}  // namespace millrace
