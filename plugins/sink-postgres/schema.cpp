#include "schema.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <vector>

#include <fmt/format.h>

#include "millrace/error.h"

namespace millrace {

namespace {

using Row = Connection::Row;

/// Any two sinks that make a schema in one database at once.
constexpr std::string_view kSchemaLock =
    "SELECT pg_advisory_xact_lock(hashtext('millrace schema'))";

std::string text(const Row& row, std::size_t column) { return row.at(column).value_or(""); }
bool is_true(const Row& row, std::size_t column) { return text(row, column) == "t"; }

/// What the server knows under a name, in the search path; nothing if there is nothing.
std::optional<Row> relation(Connection& connection, const std::string& name) {
  auto rows = connection.query(
      "SELECT oid, relkind, relpersistence FROM pg_class WHERE oid = to_regclass($1)",
      {fmt::format("\"{}\"", name)});
  return rows.empty() ? std::nullopt : std::optional(std::move(rows[0]));
}

/// Exact to the microsecond, which a calculation in floating point is not.
std::string as_time(std::string_view column) {
  return fmt::format("timestamptz 'epoch' + ({0} / 1000) * interval '1 microsecond' AS {0}",
                     column);
}

void create_table(Connection& connection, const std::string& table) {
  std::string columns;
  for (const Column& column : kColumns) {
    columns +=
        fmt::format("{} {}{},\n", column.name, column.type, column.nullable ? "" : " NOT NULL");
  }
  connection.execute(
      fmt::format("CREATE TABLE \"{0}\" (\n{1}PRIMARY KEY (session));\n"
                  "CREATE INDEX ON \"{0}\" (first_seen);\n"
                  "CREATE INDEX ON \"{0}\" (label, first_seen)",
                  table, columns));
}

void create_view(Connection& connection, const std::string& table) {
  connection.execute(fmt::format(
      "CREATE VIEW \"{0}_readable\" AS SELECT replace(session::text, '-', '') AS session, agent, "
      "CASE protocol WHEN 6 THEN 'tcp' WHEN 17 THEN 'udp' ELSE protocol::text END AS protocol, "
      "host(src) AS src, src_port, host(dst) AS dst, dst_port, {1}, {2}, packets, bytes, "
      "payload_bytes, reason, label, round(confidence::numeric, 4) AS confidence, model, "
      "model_version, {3} FROM \"{0}\"",
      table, as_time("first_seen"), as_time("last_seen"), as_time("classified_at")));
}

/// What pg_attribute tells of one column.
struct Found {
  std::string type;
  bool nullable = false;
  bool given = false;  ///< the server makes the value: GENERATED ALWAYS
  bool needs_value = false;
};

std::map<std::string, Found> columns_of(Connection& connection, const std::string& oid) {
  std::map<std::string, Found> columns;
  for (const Row& row :
       connection.query("SELECT attname, format_type(atttypid, atttypmod), NOT attnotnull, "
                        "attidentity = 'a' OR attgenerated <> '', "
                        "attnotnull AND NOT atthasdef AND attidentity = '' FROM pg_attribute "
                        "WHERE attrelid = $1::oid AND attnum > 0 AND NOT attisdropped",
                        {oid})) {
    columns[text(row, 0)] = {text(row, 1), is_true(row, 2), is_true(row, 3), is_true(row, 4)};
  }
  return columns;
}

/// Texts that do not fit are refused one by one, so their columns may be of any length, but for
/// `reason`, which is never longer than 16.
bool fits(const Column& column, std::string_view type) {
  constexpr std::string_view kText = "character varying";
  if (!column.type.starts_with(kText)) return type == column.type;
  if (type == kText || type == "text") return true;
  if (!type.starts_with(kText)) return false;
  type.remove_prefix(kText.size() + 1);
  std::size_t length = 0;
  std::from_chars(type.data(), type.data() + type.size(), length);
  constexpr std::size_t kReasonLength = 16;
  return column.name != "reason" || length >= kReasonLength;
}

/// What is wrong with a column but that it does not take NULL, or nothing.
std::string fault(const Column& column, const Found& found) {
  if (!fits(column, found.type)) {
    return fmt::format("column '{}' is {}, expected {}", column.name, found.type, column.type);
  }
  if (found.given) {
    return fmt::format("column '{}' is GENERATED ALWAYS, expected to take values", column.name);
  }
  return {};
}

bool has_unique_key(Connection& connection, const std::string& oid) {
  return !connection
              .query(
                  "SELECT 1 FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND "
                  "attnum = indkey[0] WHERE indrelid = $1::oid AND attname = 'session' AND "
                  "indisunique AND indimmediate AND indisvalid AND indnkeyatts = 1 AND "
                  "indpred IS NULL",
                  {oid})
              .empty();
}

std::string kind_name(const std::string& kind) {
  static const std::map<std::string, std::string> kNames{
      {"v", "a view"},          {"m", "a materialized view"},
      {"f", "a foreign table"}, {"S", "a sequence"},
      {"i", "an index"},        {"I", "an index"},
      {"c", "a type"}};
  const auto found = kNames.find(kind);
  return found == kNames.end() ? "of the kind " + kind : found->second;
}

}  // namespace

void create_schema(Connection& connection, const std::string& table) {
  connection.begin();
  connection.execute(std::string(kSchemaLock));
  if (!relation(connection, table)) create_table(connection, table);
  if (!relation(connection, table + "_readable")) create_view(connection, table);
  connection.commit();
}

void check_schema(Connection& connection, const std::string& table) {
  const std::string encoding = text(connection.query("SHOW server_encoding").at(0), 0);
  if (encoding != "UTF8") {
    throw ConfigError("server",
                      fmt::format("the database has the encoding {}, expected UTF8", encoding));
  }
  const std::optional<Row> found = relation(connection, table);
  if (!found) {
    throw ConfigError(
        "table", fmt::format("there is no table '{}' in the schemas that are searched ({}); with "
                             "create = true it is made",
                             table, text(connection.query("SHOW search_path").at(0), 0)));
  }
  const std::string oid = text(*found, 0);
  const std::string kind = text(*found, 1);
  const auto columns = columns_of(connection, oid);
  std::vector<std::string> faults = faults_of_columns<Found>(kColumns, columns, fault);
  if (kind != "r" && kind != "p") {
    faults.insert(faults.begin(), "it is no table but " + kind_name(kind));
  } else {
    if (text(*found, 2) == "u") {
      faults.emplace_back(
          "it is UNLOGGED, so that a crash of the server empties it; expected a "
          "logged table");
    }
    if (columns.contains("session") && !has_unique_key(connection, oid)) {
      faults.emplace_back("a unique key of the column 'session' alone is missing");
    }
  }
  refuse_faults(table, faults);
}

}  // namespace millrace
