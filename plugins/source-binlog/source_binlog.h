#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "millrace/change.h"
#include "millrace/plugin.h"
#include "millrace/stage.h"

#include "binlog_options.h"
#include "binlog_reader.h"
#include "gtid_position.h"
#include "state_file.h"

namespace millrace {

/// Options that cannot work whatever the server says.
void check_binlog_options(const BinlogOptions& options, Findings& findings);

/// Reads the changes of rows from the binary log of a MariaDB server, as a replica does. The
/// position is kept in a file and follows the receipts in order; a batch that fails is read again.
class SourceBinlog final : public Source<Change> {
 public:
  explicit SourceBinlog(const BinlogOptions& options) : options_(options), state_(options.state) {}

  void open(Context& context) override;
  void run(Output<Change>& out, std::stop_token stop) override;
  void close() noexcept override;

 private:
  /// A number given to the receipts, and the position that it stands for.
  struct Mark {
    std::uint64_t number = 0;
    GtidPosition position;
  };

  void check_server() const;
  void check_state() const;
  void new_window();
  void push(Portion portion, Output<Change>& out);
  void mark(GtidPosition position);
  /// What was read without changes is delivered once everything before it is.
  void settle_behind();
  void commit_what_is_due(bool now);
  void read_again(Output<Change>& out, const std::stop_token& stop);
  void wait_for_receipts(Output<Change>& out);
  /// Lets time move on downstream, if that was not done just now.
  void give_time(Output<Change>& out);

  const BinlogOptions options_;
  const StateFile state_;
  Context* context_ = nullptr;
  Counter* again_ = nullptr;
  ConnectionOptions server_;
  std::unique_ptr<BinlogReader> reader_;

  std::optional<ReceiptWindow> window_;
  /// The highest number that may be committed; the receipts of an earlier window have another one.
  std::shared_ptr<std::atomic<std::uint64_t>> committed_;
  std::uint64_t number_ = 0;
  std::deque<Mark> marks_;              ///< that are not committed
  std::optional<GtidPosition> behind_;  ///< read without changes, behind the last mark
  std::optional<GtidPosition> delivered_;
  bool written_ = true;  ///< the file says `delivered_`
  std::chrono::steady_clock::time_point next_commit_;
  std::chrono::steady_clock::time_point next_time_;
};

}  // namespace millrace
