#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "millrace/plugin.h"
#include "millrace/stage.h"
#include "millrace/verdict.h"

#include "database.h"

namespace millrace {

enum class Synchronous : std::uint8_t { normal, full };

struct SqliteOptions {
  std::string path{};
  std::uint32_t batch = 1000;
  Duration max_wait = std::chrono::seconds(1);
  Duration busy_timeout = std::chrono::seconds(2);
  ByteSize cache{std::uint64_t{64} << 20U};
  Synchronous synchronous = Synchronous::normal;
};

/// Stores verdicts as rows of an SQLite database; a session that is there already is not added
/// again. Batches wait in memory until a transaction is worth it, so that the database is locked
/// for no longer than it takes to write them; their receipts are resolved after COMMIT.
class SinkSqlite final : public Sink<Verdict> {
 public:
  explicit SinkSqlite(const SqliteOptions& options) : options_(options) {}

  static void check(const SqliteOptions& options, Findings& findings);
  void open(Context& context) override;
  void write(Batch<Verdict>& in) override;
  void flush() override;
  void close() noexcept override;

 private:
  /// What became of the rows of one transaction.
  struct Outcomes {
    std::uint64_t stored = 0;
    std::uint64_t labelled = 0;
    std::uint64_t already_stored = 0;
  };

  void open_schema();
  void store(const Verdict& verdict, Outcomes& outcomes);
  void store_all(const std::vector<Verdict>& last);
  [[nodiscard]] bool due(std::size_t rows, Timestamp now) const;

  SqliteOptions options_;
  Context* context_ = nullptr;
  Counter* stored_ = nullptr;
  Counter* labelled_ = nullptr;
  Counter* already_stored_ = nullptr;
  Database database_;
  Database::Statement insert_;
  Database::Statement fill_in_;
  std::vector<Batch<Verdict>> waiting_;  ///< not in the database yet
  std::size_t waiting_rows_ = 0;
  std::optional<Timestamp> waiting_since_;
};

}  // namespace millrace
