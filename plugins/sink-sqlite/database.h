#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "millrace/time.h"

struct sqlite3;
struct sqlite3_stmt;

namespace millrace {

/// A connection to one SQLite database file. Threads: one at a time.
///
/// Errors that pass (locked, full disk) are thrown as Transient, all others as std::runtime_error;
/// both name the file and what SQLite said.
class Database {
 public:
  /// Opens `path` for writing and makes it if it is not there. Throws ConfigError for the option
  /// "path" where that cannot work.
  void open(const std::string& path, Duration busy_timeout);
  /// Writes what is in the write-ahead log into the database file, and closes.
  void close() noexcept;

  void execute(const char* sql);
  /// The first column of the first row, empty if there is none.
  [[nodiscard]] std::string value(const char* sql);
  /// Ends the transaction if one is open.
  void roll_back() noexcept;

  /// A prepared statement. Bind all parameters, then run.
  class Statement {
   public:
    void bind(int parameter, std::string_view text);
    void bind(int parameter, std::int64_t number);
    void bind(int parameter, double number);
    /// Returns how many rows were changed.
    [[nodiscard]] std::uint64_t run();
    /// The first row as texts, NULL as an empty one; nothing if there is none.
    [[nodiscard]] std::optional<std::vector<std::string>> first_row();

   private:
    friend class Database;
    struct Finalize {
      void operator()(sqlite3_stmt* statement) const;
    };
    Database* database_ = nullptr;
    std::unique_ptr<sqlite3_stmt, Finalize> statement_;
  };
  /// The statement must not outlive `close`.
  [[nodiscard]] Statement prepare(const char* sql);

 private:
  [[noreturn]] void fail(int code, std::string_view doing) const;

  struct Close {
    void operator()(sqlite3* connection) const;
  };
  std::string path_;
  std::unique_ptr<sqlite3, Close> connection_;
};

}  // namespace millrace
