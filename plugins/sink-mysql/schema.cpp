#include "schema.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <vector>

#include <fmt/format.h>

#include "millrace/error.h"

namespace millrace {

namespace {

/// Times are shown in UTC whatever the session's time zone, which FROM_UNIXTIME would use.
std::string utc(std::string_view column) {
  return fmt::format(
      "TIMESTAMPADD(MICROSECOND, {0} DIV 1000, TIMESTAMP'1970-01-01 00:00:00') AS {0}", column);
}

/// What information_schema tells of one column, in small letters.
struct Found {
  std::string data_type;
  std::string column_type;
  bool nullable = false;
  bool needs_value = false;
  std::size_t length = 0;
  std::string charset;
};

std::string text(const Connection::Row& row, std::size_t column) {
  std::string value = row.at(column).value_or("");
  std::ranges::transform(value, value.begin(), [](unsigned char c) { return std::tolower(c); });
  return value;
}

std::map<std::string, Found> columns_of(Connection& connection, const std::string& table) {
  std::map<std::string, Found> columns;
  for (const Connection::Row& row : connection.query(fmt::format(
           "SELECT column_name, data_type, column_type, is_nullable, column_default, extra, "
           "character_maximum_length, character_set_name FROM information_schema.columns "
           "WHERE table_schema = DATABASE() AND table_name = '{}'",
           table))) {
    Found found;
    found.data_type = text(row, 1);
    found.column_type = text(row, 2);
    found.nullable = text(row, 3) == "yes";
    // MariaDB tells the default NULL by that word, MySQL by NULL itself.
    const std::string extra = text(row, 5);
    found.needs_value = !found.nullable && !row.at(4) &&
                        extra.find("auto_increment") == std::string::npos &&
                        extra.find("generated") == std::string::npos;
    if (row.at(6)) found.length = std::stoull(*row.at(6));
    found.charset = text(row, 7);
    columns[text(row, 0)] = found;
  }
  return columns;
}

/// What is wrong with a column but that it does not take NULL, or nothing.
std::string fault(const Column& column, const Found& found) {
  std::string wanted(column.type);
  std::ranges::transform(wanted, wanted.begin(), [](unsigned char c) { return std::tolower(c); });
  const bool is_text = wanted.starts_with("varchar");
  const std::string type = wanted.substr(0, wanted.find_first_of("( "));
  const bool unsigned_wanted = wanted.ends_with("unsigned");
  // The texts that are rejected where they do not fit may be of any length; TINYTEXT counts bytes.
  constexpr std::size_t kReasonLength = 16;
  const bool right_type =
      is_text ? (found.data_type == "varchar" || found.data_type == "text" ||
                 found.data_type == "mediumtext" || found.data_type == "longtext") &&
                    (column.name != "reason" || found.length >= kReasonLength)
              : found.data_type == type &&
                    unsigned_wanted == (found.column_type.find("unsigned") != std::string::npos) &&
                    (type.find("binary") == std::string::npos || found.length == 16);
  if (!right_type) {
    return fmt::format("column '{}' is {}, expected {}", column.name, found.column_type,
                       column.type);
  }
  if (is_text && found.charset != "utf8mb4") {
    return fmt::format("column '{}' has the character set {}, expected utf8mb4", column.name,
                       found.charset);
  }
  return {};
}

bool has_unique_key(Connection& connection, const std::string& table) {
  const auto keys = connection.query(fmt::format(
      "SELECT index_name FROM information_schema.statistics WHERE table_schema = DATABASE() AND "
      "table_name = '{}' GROUP BY index_name HAVING MAX(non_unique) = 0 AND COUNT(*) = 1 AND "
      "MAX(column_name) = 'session' AND MAX(sub_part) IS NULL",
      table));
  return !keys.empty();
}

}  // namespace

void create_schema(Connection& connection, const std::string& table) {
  std::string columns;
  for (const Column& column : kColumns) {
    columns +=
        fmt::format("{} {} {},\n", column.name, column.type, column.nullable ? "NULL" : "NOT NULL");
  }
  connection.execute(
      fmt::format("CREATE TABLE IF NOT EXISTS `{0}` ({1}PRIMARY KEY (`session`),\n"
                  "KEY by_time (first_seen),\nKEY by_label (label, first_seen))\n"
                  "ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
                  table, columns));
  const auto views = connection.query(
      fmt::format("SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE() AND "
                  "table_name = '{}_readable'",
                  table));
  if (!views.empty()) return;
  try {
    connection.execute(fmt::format(
        "CREATE SQL SECURITY INVOKER VIEW `{0}_readable` AS SELECT LOWER(HEX(session)) AS session, "
        "agent, CASE protocol WHEN 6 THEN 'tcp' WHEN 17 THEN 'udp' ELSE CAST(protocol AS CHAR) END "
        "AS protocol, "
        "INET6_NTOA(src) AS src, src_port, INET6_NTOA(dst) AS dst, dst_port, {1}, {2}, packets, "
        "bytes, payload_bytes, reason, label, ROUND(confidence, 4) AS confidence, model, "
        "model_version, {3} FROM `{0}`",
        table, utc("first_seen"), utc("last_seen"), utc("classified_at")));
  } catch (const ServerError& error) {
    constexpr int kExists = 1050;  // another sink was faster
    if (error.code() != kExists) throw;
  }
}

TextLimits check_schema(Connection& connection, const std::string& table) {
  const auto tables = connection.query(fmt::format(
      "SELECT t.table_type, t.engine, e.transactions FROM information_schema.tables t LEFT JOIN "
      "information_schema.engines e ON e.engine = t.engine WHERE t.table_schema = DATABASE() AND "
      "t.table_name = '{}'",
      table));
  if (tables.empty()) {
    throw ConfigError("table", fmt::format("there is no table '{}' that this user may see; with "
                                           "create = true it is made",
                                           table));
  }
  const auto columns = columns_of(connection, table);
  std::vector<std::string> faults = faults_of_columns<Found>(kColumns, columns, fault);
  if (text(tables[0], 0) != "base table") {
    faults.insert(faults.begin(), "it is no table but a " + text(tables[0], 0));
  } else {
    if (text(tables[0], 2) != "yes") {
      faults.push_back(fmt::format("the engine {} has no transactions, expected InnoDB",
                                   tables[0].at(1).value_or("?")));
    }
    if (columns.contains("session") && !has_unique_key(connection, table)) {
      faults.emplace_back("a unique key of the column 'session' alone is missing");
    }
  }
  refuse_faults(table, faults);
  // Longer texts could make one row too long for a message.
  static constexpr std::size_t kLongest = 255;
  const auto length = [&columns](const char* name) {
    return std::min(columns.at(name).length, kLongest);
  };
  return {length("agent"), length("label"), length("model"), length("model_version")};
}

}  // namespace millrace
