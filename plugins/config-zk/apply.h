#pragma once

#include <optional>
#include <string>
#include <vector>

#include "millrace/change.h"
#include "millrace/plugin.h"
#include "millrace/stage.h"

#include "node_layout.h"
#include "reminder.h"
#include "table_reader.h"
#include "zk_client.h"

namespace millrace {

enum class OnDelete : std::uint8_t { remove, keep };

struct ApplyOptions {
  std::string server{};
  std::string node = "/millrace/agents/{agent}";
  ValueFormat format = ValueFormat::toml;
  std::vector<std::string> columns{};
  std::string value{};
  std::vector<std::string> tables{};
  OnDelete on_delete = OnDelete::remove;
  std::string reconcile{};
  Duration reconcile_every = std::chrono::minutes(5);
  Duration session_timeout = std::chrono::seconds(10);
  std::string auth{};
  bool readable = false;
};

/// Makes ZooKeeper nodes of the rows of a table, change by change, and now and then compares all of
/// them with the table.
class ConfigZkApply final : public Sink<Change> {
 public:
  explicit ConfigZkApply(const ApplyOptions& options) : options_(options) {}

  static void check(const ApplyOptions& options, Findings& findings);
  void open(Context& context) override;
  void write(Batch<Change>& in) override;
  void close() noexcept override;

 private:
  /// What a node is to be: its value, or not there.
  struct Step {
    std::string path;
    std::optional<std::string> value;
    std::size_t item = 0;  ///< position in the batch
  };

  [[nodiscard]] bool is_ours(const Change& change) const;
  [[nodiscard]] std::vector<Step> steps_of(const Batch<Change>& in) const;
  void add_steps(const Change& change, std::size_t item, std::vector<Step>& steps) const;
  void connect();
  void apply(const Step& step);
  void put(const Step& step);
  void remove(const Step& step);
  void expect(const ZkReply& reply, const Step& step) const;
  void reconcile_if_due();
  void reconcile();

  ApplyOptions options_;
  Context* context_ = nullptr;
  std::vector<std::string> tables_;
  std::optional<NodeLayout> layout_;
  std::optional<TableAddress> table_;
  std::optional<ZkClient> client_;
  std::optional<Timestamp> reconcile_at_;
  Reminder reconcile_said_;
  std::string fault_said_;  ///< of the comparison before
  bool empty_said_ = false;

  Counter* created_ = nullptr;
  Counter* updated_ = nullptr;
  Counter* deleted_ = nullptr;
  Counter* kept_ = nullptr;
  Counter* unchanged_ = nullptr;
  Counter* superseded_ = nullptr;
  Counter* repaired_ = nullptr;
};

}  // namespace millrace
