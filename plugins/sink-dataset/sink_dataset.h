#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "millrace/features.h"
#include "millrace/plugin.h"
#include "millrace/stage.h"

#include "distinct_rows.h"
#include "label_table.h"

namespace millrace {

enum class DataFormat : std::uint8_t { idx, npz };

/// Where the label of a session comes from.
enum class LabelFrom : std::uint8_t {
  option,  ///< the option `label`: all sessions are of one class
  agent,   ///< the name of the session's agent
  table    ///< the CSV file in `labels`
};

struct DatasetOptions {
  std::string path{};
  DataFormat format = DataFormat::idx;
  LabelFrom label_from = LabelFrom::option;
  std::string label{};
  std::string labels{};
  std::string label_column = "label";
  double dev_share = 0.2;
  std::uint64_t seed = 1;
  std::uint32_t max_sessions = 1U << 20U;
  std::uint32_t bytes = 784;
  Layer layer = Layer::l7;
  std::uint32_t min_payload = 2;
  bool fragments = false;
  std::uint32_t padding = 0;
  bool index = false;
};

/// Writes labelled sessions as training data, each different row of features once, at the end of
/// the input: only then is it known which features two classes have in common.
///
/// Receipts are kept until the files are there; that of a batch without a new row is resolved at
/// once.
class SinkDataset final : public Sink<Session> {
 public:
  explicit SinkDataset(const DatasetOptions& options);

  static void check(const DatasetOptions& options, Findings& findings);
  void open(Context& context) override;
  void write(Batch<Session>& in) override;
  void flush() override;

 private:
  /// Null: it has none.
  [[nodiscard]] const std::string* label_of(const Session& session);
  void check_batch(const Batch<Session>& in);
  void report(const DataSplit& split);

  DatasetOptions options_;
  FeatureSpec spec_;
  Context* context_ = nullptr;
  LabelTable table_;
  DistinctRows rows_;
  std::vector<std::uint8_t> features_;
  std::string agent_;
  std::vector<Receipt> receipts_;  ///< of the batches that brought new rows
  bool written_ = false;
};

}  // namespace millrace
