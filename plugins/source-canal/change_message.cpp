#include "change_message.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "json_value.h"

namespace millrace {

namespace {

using Kind = JsonValue::Kind;
using Row = Change::Row;

Row row_of(const JsonValue& object, std::string_view member) {
  if (!object.is(Kind::object)) {
    throw std::runtime_error(fmt::format("'{}' is no object of columns", member));
  }
  Row row;
  row.reserve(object.members.size());
  for (const auto& [column, value] : object.members) {
    row.emplace_back(column, value.is(Kind::null) ? std::nullopt : std::optional(value.text()));
  }
  return row;
}

/// The row before an update: the one after it with the earlier values of what has changed.
Row laid_over(const Row& after, const Row& old) {
  Row before = after;
  for (const auto& earlier : old) {
    const auto same = std::ranges::find(before, earlier.first, &Row::value_type::first);
    if (same == before.end()) {
      before.push_back(earlier);
    } else {
      same->second = earlier.second;
    }
  }
  return before;
}

std::string text_member(const JsonValue& object, std::string_view name) {
  const JsonValue& value = object[name];
  if (!value.is(Kind::string) || value.string().empty()) {
    throw std::runtime_error(fmt::format("the text '{}' is missing", name));
  }
  return value.text();
}

Change change_of(const JsonValue& named, std::string_view database, Change::Kind kind) {
  Change change;
  change.kind = kind;
  change.database = text_member(named, database);
  change.table = text_member(named, "table");
  return change;
}

/// A type that this format does not have: the topic is of another, or of something else.
[[noreturn]] void not_of(std::string_view format, std::string_view type, std::string_view other) {
  throw std::runtime_error(fmt::format("{} writes no 'type' '{}'{}", format, type, other));
}

std::string emptied_by(const JsonValue& message, std::string_view database) {
  const std::string_view table = message["table"].string();
  return fmt::format("{}.{}", message[database].string(), table.empty() ? "*" : table);
}

/// `{"type": "UPDATE", "database": ..., "table": ..., "data": [rows], "old": [changed columns]}`,
/// what Canal calls a flat message.
ChangeMessage read_canal(const JsonValue& message) {
  ChangeMessage result;
  const std::string type = text_member(message, "type");
  if (type == "TRUNCATE" || type == "ERASE") {  // the latter is DROP TABLE
    result.skipped = type == "ERASE" ? "ddl" : "truncate";
    result.emptied = emptied_by(message, "database");
    return result;
  }
  if (message["isDdl"].text() == "true") {
    result.skipped = "ddl";
    return result;
  }
  std::optional<Change::Kind> kind;
  if (type == "INSERT") kind = Change::Kind::inserted;
  if (type == "UPDATE") kind = Change::Kind::updated;
  if (type == "DELETE") kind = Change::Kind::deleted;
  if (!kind) {
    static constexpr std::array<std::string_view, 12> kOthers{
        "CREATE", "ALTER", "QUERY",    "RENAME",     "CINDEX",     "DINDEX",
        "GTID",   "DDL",   "XACOMMIT", "XAROLLBACK", "MHEARTBEAT", "HEARTBEAT"};
    if (std::ranges::find(kOthers, type) == kOthers.end()) {
      const bool maxwell = std::ranges::none_of(type, [](char c) { return c >= 'A' && c <= 'Z'; });
      not_of("Canal", type, maxwell ? R"(; Maxwell does (format = "maxwell"))" : "");
    }
    result.skipped = "other-type";
    return result;
  }
  const Change form = change_of(message, "database", *kind);
  const JsonValue& data = message["data"];
  if (!data.is(Kind::array)) throw std::runtime_error("'data' is no list of rows");
  const JsonValue& old = message["old"];
  if (!old.is(Kind::null) && !old.is(Kind::array)) {
    throw std::runtime_error("'old' is no list of rows");
  }
  const std::size_t rows = data.elements.size();
  const std::size_t old_rows = old.elements.size();
  if (old_rows > rows) throw std::runtime_error("'old' has more rows than 'data'");
  // Canal leaves out the entry of a row without a changed column; which row that was, nobody knows.
  const bool aligned = old_rows == rows || old_rows == 0;
  result.changes.reserve(rows);
  for (std::size_t i = 0; i < rows; ++i) {
    Change change = form;
    Row row = row_of(data.elements[i], "data");
    if (*kind == Change::Kind::deleted) {
      change.before = std::move(row);
    } else {
      if (*kind == Change::Kind::updated && aligned) {
        const bool changed = i < old_rows && !old.elements[i].is(Kind::null);
        change.before = laid_over(row, changed ? row_of(old.elements[i], "old") : Row());
      } else if (*kind == Change::Kind::updated) {
        ++result.before_unknown;
      }
      change.after = std::move(row);
    }
    result.changes.push_back(std::move(change));
  }
  return result;
}

/// `{"op": "u", "before": row, "after": row, "source": {"db": ..., "table": ...}}`, alone or as the
/// `payload` beside a `schema`.
ChangeMessage read_debezium(const JsonValue& message) {
  ChangeMessage result;
  if (message.is(Kind::null)) {
    result.skipped = "tombstone";
    return result;
  }
  const bool wrapped = std::any_of(message.members.begin(), message.members.end(),
                                   [](const auto& member) { return member.first == "payload"; });
  const JsonValue& event = wrapped ? message["payload"] : message;
  if (event.is(Kind::null)) {
    result.skipped = "tombstone";
    return result;
  }
  if (event["op"].is(Kind::null)) {
    // Schema changes, heartbeats and the borders of transactions are no envelopes.
    if (event["ddl"].is(Kind::string)) {
      result.skipped = "ddl";
      const std::string_view ddl = event["ddl"].string();
      const auto begins = [&](std::string_view word) {
        return std::ranges::equal(ddl.substr(0, word.size()), word, {},
                                  [](unsigned char c) { return std::tolower(c); });
      };
      const JsonValue& changed = event["tableChanges"];
      if (begins("truncate") || begins("drop table") || begins("drop database")) {
        // "\"d\".\"t\"", where it is told at all.
        std::string table;
        if (!changed.elements.empty()) {
          table = changed.elements.front()["id"].text();
          std::erase(table, '"');
        }
        const bool named = table.find('.') != std::string::npos;
        result.emptied = named ? table : fmt::format("{}.*", event["databaseName"].string());
      }
    } else if (event["status"].is(Kind::string) || event["ts_ms"].is(Kind::number)) {
      result.skipped = "other-type";
    } else {
      throw std::runtime_error("the text 'op' is missing");
    }
    return result;
  }
  const std::string op = text_member(event, "op");
  std::optional<Change::Kind> kind;
  if (op == "c" || op == "r") kind = Change::Kind::inserted;
  if (op == "u") kind = Change::Kind::updated;
  if (op == "d") kind = Change::Kind::deleted;
  if (op == "t") {
    result.skipped = "truncate";
    result.emptied = emptied_by(event["source"], "db");
    return result;
  }
  if (!kind) {
    if (op != "m") throw std::runtime_error(fmt::format("Debezium writes no 'op' '{}'", op));
    result.skipped = "other-type";
    return result;
  }
  Change change = change_of(event["source"], "db", *kind);
  const bool has_before = !event["before"].is(Kind::null);
  if (*kind != Change::Kind::inserted && has_before) {
    change.before = row_of(event["before"], "before");
  } else if (*kind == Change::Kind::deleted) {
    throw std::runtime_error("'before' of a deleted row is missing");
  } else if (*kind == Change::Kind::updated) {
    ++result.before_unknown;
  }
  if (*kind != Change::Kind::deleted) change.after = row_of(event["after"], "after");
  result.changes.push_back(std::move(change));
  return result;
}

/// `{"type": "update", "database": ..., "table": ..., "data": row, "old": changed columns}`.
ChangeMessage read_maxwell(const JsonValue& message) {
  ChangeMessage result;
  if (message.is(Kind::null)) {
    result.skipped = "tombstone";
    return result;
  }
  const std::string type = text_member(message, "type");
  std::optional<Change::Kind> kind;
  if (type == "insert" || type == "bootstrap-insert") kind = Change::Kind::inserted;
  if (type == "update") kind = Change::Kind::updated;
  if (type == "delete") kind = Change::Kind::deleted;
  if (!kind) {
    const bool ddl = type.starts_with("table-") || type.starts_with("database-");
    if (type == "table-drop" || type == "database-drop") {
      result.emptied = emptied_by(message, "database");
    }
    if (!ddl && type != "bootstrap-start" && type != "bootstrap-complete" && type != "heartbeat") {
      const bool canal = type == "INSERT" || type == "UPDATE" || type == "DELETE" ||
                         !message["isDdl"].is(Kind::null);
      not_of("Maxwell", type, canal ? R"(; Canal does (format = "canal"))" : "");
    }
    result.skipped = ddl ? "ddl" : "other-type";
    return result;
  }
  Change change = change_of(message, "database", *kind);
  Row row = row_of(message["data"], "data");
  if (*kind == Change::Kind::deleted) {
    change.before = std::move(row);
  } else {
    if (*kind == Change::Kind::updated) {
      const JsonValue& old = message["old"];
      change.before = laid_over(row, old.is(Kind::null) ? Row() : row_of(old, "old"));
    }
    change.after = std::move(row);
  }
  result.changes.push_back(std::move(change));
  return result;
}

}  // namespace

ChangeMessage read_change_message(MessageFormat format, std::string_view text) {
  if (text.empty()) {
    ChangeMessage tombstone;
    tombstone.skipped = "tombstone";
    return tombstone;
  }
  const JsonValue message = parse_json(text);
  const bool may_be_null = format != MessageFormat::canal && message.is(Kind::null);
  if (!message.is(Kind::object) && !may_be_null) throw std::runtime_error("no JSON object");
  switch (format) {
    case MessageFormat::canal:
      return read_canal(message);
    case MessageFormat::debezium:
      return read_debezium(message);
    case MessageFormat::maxwell:
      break;
  }
  return read_maxwell(message);
}

}  // namespace millrace
