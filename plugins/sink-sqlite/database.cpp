#include "database.h"

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <stdexcept>
#include <system_error>

#include <fcntl.h>
#include <fmt/format.h>
#include <sqlite3.h>
#include <unistd.h>

#include "millrace/error.h"

namespace millrace {

void Database::Close::operator()(sqlite3* connection) const { sqlite3_close(connection); }

void Database::Statement::Finalize::operator()(sqlite3_stmt* statement) const {
  sqlite3_finalize(statement);
}

void Database::open(const std::string& path, Duration busy_timeout) {
  namespace fs = std::filesystem;
  path_ = path;
  const fs::path folder = fs::path(path).parent_path();
  std::error_code ignored;
  if (!folder.empty() && !fs::is_directory(folder, ignored)) {
    throw ConfigError("path", fmt::format("the folder '{}' does not exist", folder.string()));
  }
  // The write-ahead log is beside the database, so its folder must be writable in any case. Asked
  // here because SQLite's own answer misleads: it goes on to try to read.
  if (::faccessat(AT_FDCWD, folder.empty() ? "." : folder.c_str(), W_OK | X_OK, AT_EACCESS) != 0) {
    const int error = errno;
    throw ConfigError("path", fmt::format("the folder '{}' cannot be written: {}",
                                          folder.empty() ? "." : folder.string(),
                                          std::system_category().message(error)));
  }
  if (fs::is_directory(path, ignored)) {
    throw ConfigError("path", fmt::format("'{}' is a folder; expected a file name", path));
  }
  sqlite3* raw = nullptr;
  const int code =
      sqlite3_open_v2(path.c_str(), &raw,
                      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  connection_.reset(raw);
  if (code != SQLITE_OK) {
    const int error = raw == nullptr ? 0 : sqlite3_system_errno(raw);
    throw ConfigError("path", fmt::format("cannot open '{}': {}", path,
                                          error == 0 ? std::string(sqlite3_errstr(code))
                                                     : std::system_category().message(error)));
  }
  // SQLite falls back to reading when it may not write.
  if (sqlite3_db_readonly(raw, "main") == 1) {
    throw ConfigError("path", fmt::format("'{}' may only be read by this user", path));
  }
  sqlite3_extended_result_codes(raw, 1);
  const auto timeout = std::chrono::duration_cast<std::chrono::milliseconds>(busy_timeout);
  sqlite3_busy_timeout(raw, static_cast<int>(timeout.count()));
}

void Database::close() noexcept {
  if (!connection_) return;
  roll_back();
  // A reader may prevent it; then the log stays beside the database, and nothing is lost.
  sqlite3_wal_checkpoint_v2(connection_.get(), nullptr, SQLITE_CHECKPOINT_TRUNCATE, nullptr,
                            nullptr);
  connection_.reset();
}

void Database::execute(const char* sql) {
  const int code = sqlite3_exec(connection_.get(), sql, nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) fail(code, "write");
}

std::string Database::value(const char* sql) {
  std::string first;
  const auto take = [](void* to, int columns, char** values, char** /*names*/) {
    if (columns > 0 && values[0] != nullptr) *static_cast<std::string*>(to) = values[0];
    return 0;
  };
  const int code = sqlite3_exec(connection_.get(), sql, take, &first, nullptr);
  if (code != SQLITE_OK) fail(code, "read");
  return first;
}

void Database::roll_back() noexcept {
  // After some errors SQLite has done so already.
  if (connection_ && sqlite3_get_autocommit(connection_.get()) == 0) {
    sqlite3_exec(connection_.get(), "ROLLBACK", nullptr, nullptr, nullptr);
  }
}

Database::Statement Database::prepare(const char* sql) {
  sqlite3_stmt* raw = nullptr;
  const int code =
      sqlite3_prepare_v3(connection_.get(), sql, -1, SQLITE_PREPARE_PERSISTENT, &raw, nullptr);
  if (code != SQLITE_OK) fail(code, "use");
  Statement statement;
  statement.database_ = this;
  statement.statement_.reset(raw);
  return statement;
}

void Database::Statement::bind(int parameter, std::string_view text) {
  // An empty view may have no address, which would be NULL.
  const char* data = text.data() == nullptr ? "" : text.data();
  const int code = sqlite3_bind_text64(statement_.get(), parameter, data, text.size(),
                                       SQLITE_TRANSIENT, SQLITE_UTF8);
  if (code != SQLITE_OK) database_->fail(code, "write");
}

void Database::Statement::bind(int parameter, std::int64_t number) {
  const int code = sqlite3_bind_int64(statement_.get(), parameter, number);
  if (code != SQLITE_OK) database_->fail(code, "write");
}

void Database::Statement::bind(int parameter, double number) {
  const int code = sqlite3_bind_double(statement_.get(), parameter, number);
  if (code != SQLITE_OK) database_->fail(code, "write");
}

std::uint64_t Database::Statement::run() {
  const int code = sqlite3_step(statement_.get());
  // The message belongs to the step: it is taken before the statement is reset.
  if (code == SQLITE_DONE) {
    const auto changed =
        static_cast<std::uint64_t>(sqlite3_changes64(database_->connection_.get()));
    sqlite3_reset(statement_.get());
    return changed;
  }
  try {
    database_->fail(code, "write");
  } catch (...) {
    sqlite3_reset(statement_.get());
    throw;
  }
}

std::optional<std::vector<std::string>> Database::Statement::first_row() {
  const int code = sqlite3_step(statement_.get());
  std::optional<std::vector<std::string>> row;
  if (code == SQLITE_ROW) {
    row.emplace();
    for (int column = 0; column < sqlite3_column_count(statement_.get()); ++column) {
      const auto* text =
          reinterpret_cast<const char*>(sqlite3_column_text(statement_.get(), column));
      row->emplace_back(text == nullptr ? "" : text);
    }
  }
  if (code == SQLITE_ROW || code == SQLITE_DONE) {
    sqlite3_reset(statement_.get());
    return row;
  }
  try {
    database_->fail(code, "read");
  } catch (...) {
    sqlite3_reset(statement_.get());
    throw;
  }
}

void Database::fail(int code, std::string_view doing) const {
  const std::string what =
      fmt::format("cannot {} '{}': {}", doing, path_, sqlite3_errmsg(connection_.get()));
  switch (code & 0xFF) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_FULL:
    case SQLITE_PROTOCOL:  // several programs open a write-ahead log at the same moment
      throw Transient(what);
    default:
      throw std::runtime_error(what);
  }
}

}  // namespace millrace
