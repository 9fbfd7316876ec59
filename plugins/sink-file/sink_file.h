#pragma once

#include <string>
#include <vector>

#include "millrace/plugin.h"
#include "millrace/stage.h"

#include "line_file.h"
#include "row_format.h"

namespace millrace {

struct FileOptions {
  std::string path{};
  RowFormat format = RowFormat::jsonl;
  bool append = false;
  bool summary = true;
};

/// Writes verdicts as lines of a file. What the system has taken counts as stored: receipts are
/// kept until then.
class SinkFile final : public Sink<Verdict> {
 public:
  explicit SinkFile(const FileOptions& options) : options_(options) {}

  static void check(const FileOptions& options, Findings& findings);
  void open(Context& context) override;
  void write(Batch<Verdict>& in) override;
  void flush() override;

 private:
  void begin_file(Context& context);
  void write_out();

  FileOptions options_;
  LineFile file_;
  std::vector<Receipt> receipts_;  ///< of the batches whose lines wait in file_
  LabelSummary summary_;
  bool summed_up_ = false;
};

}  // namespace millrace
