#pragma once

#include <cstdint>
#include <string>

#include "millrace/plugin.h"
#include "millrace/stage.h"
#include "millrace/verdict.h"

#include "database.h"
#include "existing_rows.h"

namespace millrace {

enum class Synchronous : std::uint8_t { normal, full };

struct SqliteOptions {
  std::string path{};
  OnExisting on_existing = OnExisting::other_model;
  std::uint32_t batch = 10000;
  Duration max_wait = std::chrono::seconds(1);
  Duration busy_timeout = std::chrono::seconds(2);
  Synchronous synchronous = Synchronous::normal;
};

/// Stores verdicts as rows of an SQLite database; a session that is there already is not added
/// again. The host joins batches until a transaction is worth it, so every call is one transaction
/// and the database is locked for no longer than it takes to write it.
class SinkSqlite final : public Sink<Verdict> {
 public:
  explicit SinkSqlite(const SqliteOptions& options) : options_(options) {}

  static void check(const SqliteOptions& options, Findings& findings);
  void open(Context& context) override;
  [[nodiscard]] Coalesce coalesce() const override { return {options_.batch, options_.max_wait}; }
  void write(Batch<Verdict>& in) override;
  void flush() override { others_.flush(); }
  void close() noexcept override;

 private:
  /// What became of the rows of one transaction.
  struct Outcomes {
    std::uint64_t stored = 0;
    std::uint64_t labelled = 0;
    std::uint64_t already_stored = 0;
    OtherAnswers others;
  };

  void open_schema();
  void store(const Verdict& verdict, Outcomes& outcomes);
  void add_label(const std::string& id, const Verdict& verdict, Outcomes& outcomes);

  SqliteOptions options_;
  Context* context_ = nullptr;
  Counter* stored_ = nullptr;
  Counter* labelled_ = nullptr;
  Counter* already_stored_ = nullptr;
  Database database_;
  Database::Statement insert_;
  Database::Statement find_;
  Database::Statement relabel_;
  OtherAnswersReport others_;
};

}  // namespace millrace
