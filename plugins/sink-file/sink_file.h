#pragma once

#include <string>
#include <vector>

#include "millrace/stage.h"

#include "row_format.h"

namespace millrace {

struct FileOptions {
  std::string path{};
  RowFormat format = RowFormat::jsonl;
  bool append = false;
  bool summary = true;
};

/// Writes verdicts as lines of a file. What the kernel has taken counts as delivered.
class SinkFile final : public Sink<Verdict> {
 public:
  explicit SinkFile(const FileOptions& options) : options_(options) {}
  ~SinkFile() override;
  SinkFile(const SinkFile&) = delete;
  SinkFile& operator=(const SinkFile&) = delete;

  void open(Context& context) override;
  void write(Batch<Verdict>& in) override;
  void flush() override;

 private:
  void write_out();

  FileOptions options_;
  int fd_ = -1;
  std::string buffer_;             ///< whole lines that are not written yet
  std::size_t written_ = 0;        ///< of them, after a write that was cut short
  std::vector<Receipt> receipts_;  ///< of the batches in the buffer
  LabelSummary summary_;
  bool summed_up_ = false;
};

}  // namespace millrace
