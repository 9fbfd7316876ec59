#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "millrace/stage.h"
#include "millrace/verdict.h"

struct sqlite3;
struct sqlite3_stmt;

namespace millrace {

enum class Synchronous : std::uint8_t { normal, full };

struct SqliteOptions {
  std::string path{};
  std::uint32_t batch = 1000;
  Duration max_wait = std::chrono::seconds(1);
  Duration busy_timeout = std::chrono::seconds(2);
  Synchronous synchronous = Synchronous::normal;
};

/// Stores verdicts as rows of an SQLite database; a session that is there already is not added
/// again.
class SinkSqlite final : public Sink<Verdict> {
 public:
  explicit SinkSqlite(const SqliteOptions& options) : options_(options) {}

  void open(Context& context) override;
  void write(Batch<Verdict>& in) override;
  void flush() override;
  void close() noexcept override;

 private:
  struct CloseDatabase {
    void operator()(sqlite3* database) const;
  };
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const;
  };
  using Statement = std::unique_ptr<sqlite3_stmt, Finalize>;

  void execute(const char* sql);
  void check_version();
  void insert(const Verdict& verdict);
  void commit();
  void roll_back() noexcept;
  [[noreturn]] void fail(int code, const std::string& doing);

  SqliteOptions options_;
  Context* context_ = nullptr;
  Counter* stored_ = nullptr;
  Counter* already_ = nullptr;
  std::unique_ptr<sqlite3, CloseDatabase> database_;
  Statement insert_;
  bool open_transaction_ = false;
  /// Batches whose rows are in the open transaction, with their items for the case that it is lost.
  std::vector<Batch<Verdict>> waiting_;
  std::size_t waiting_rows_ = 0;
  std::uint64_t new_rows_ = 0;  ///< of the open transaction
  std::uint64_t old_rows_ = 0;  ///< those that were there already
  std::optional<Timestamp> first_waits_since_;
};

}  // namespace millrace
