#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "millrace/plugin.h"
#include "millrace/stage.h"
#include "millrace/verdict.h"

#include "connection.h"
#include "row_writer.h"

namespace millrace {

struct PostgresOptions {
  std::string server{};
  std::string password{};
  std::string table = "sessions";
  bool create = false;
  OnExisting on_existing = OnExisting::other_model;
  std::uint32_t batch = 512;
  Duration max_wait = std::chrono::seconds(1);
  Duration wait = std::chrono::seconds(30);
  Duration connect_timeout = std::chrono::seconds(5);
  Duration read_timeout = std::chrono::seconds(30);
  Duration write_timeout = std::chrono::seconds(30);
  Tls tls = Tls::off;
  std::string tls_ca{};
  std::string tls_cert{};
  std::string tls_key{};
};

/// Stores verdicts as rows of a table in PostgreSQL; a session that is there already is not added
/// again. The host joins batches until a transaction is worth it, so every call is one transaction
/// and rows that the database refuses can be named. Several may write to one table at once.
///
/// After an error of the connection nothing is kept of it: the next call makes a new one, prepares
/// anew, and does the whole transaction again.
class SinkPostgres final : public Sink<Verdict> {
 public:
  explicit SinkPostgres(const PostgresOptions& options)
      : options_(options), writer_(connection_, options.table, options.on_existing) {}

  static void check(const PostgresOptions& options, Findings& findings);
  void open(Context& context) override;
  [[nodiscard]] Coalesce coalesce() const override { return {options_.batch, options_.max_wait}; }
  void write(Batch<Verdict>& in) override;
  void flush() override { others_.flush(); }
  void close() noexcept override { connection_.close(); }

 private:
  void read_address();
  void connect_first();
  void reconnect();
  /// A row that the database refuses, and why.
  struct Refused {
    const Verdict* row = nullptr;
    std::string why;
  };

  [[nodiscard]] std::vector<Refused> store(RowWriter::Rows rows);
  [[nodiscard]] std::optional<std::string> attempt(RowWriter::Rows rows, Outcomes& outcomes);
  void find_refused(RowWriter::Rows rows, const std::string& why, std::vector<Refused>& refused);

  PostgresOptions options_;
  ConnectionOptions server_;
  Context* context_ = nullptr;
  Counter* stored_ = nullptr;
  Counter* labelled_ = nullptr;
  Counter* already_stored_ = nullptr;
  Counter* reconnected_ = nullptr;
  OtherAnswersReport others_;
  Connection connection_;
  RowWriter writer_;
};

}  // namespace millrace
