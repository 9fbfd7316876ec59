#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "millrace/context.h"

#include "binlog_decoder.h"
#include "binlog_options.h"
#include "binlog_stream.h"
#include "column_catalog.h"
#include "gtid_position.h"

namespace millrace {

/// Reads the log in a thread of its own, because waiting for an event blocks, and hands over what
/// it has read. It reads ahead until `batch` changes wait. A connection that is lost is made anew,
/// as often as it takes, and goes on behind the last transaction that was read whole.
class BinlogReader {
 public:
  BinlogReader(const BinlogOptions& options, const ConnectionOptions& server, Context& context);
  BinlogReader(const BinlogReader&) = delete;
  BinlogReader& operator=(const BinlogReader&) = delete;
  ~BinlogReader() { stop(); }

  /// Reads behind `position`; without one where the option `start` says. Throws ServerError, and
  /// std::runtime_error if the server does not have that position and `on_gap` says to stop.
  void connect(std::optional<GtidPosition> position);
  /// Where it reads on, if that is known.
  [[nodiscard]] const std::optional<GtidPosition>& position() const { return decoder_.position(); }

  /// Begins the thread, which connects first if that was not done: behind `position`.
  void start(const std::optional<GtidPosition>& position);
  /// Ends the thread. It waits for an attempt to connect that is under way, for `connect_timeout`
  /// at most.
  void stop() noexcept;
  void request_stop() noexcept;

  /// What was read since the last call; waits for it, but not longer than `patience`. Throws what
  /// ended the thread once everything that was read before has been taken.
  [[nodiscard]] Portion next(std::chrono::milliseconds patience);

 private:
  void run();
  void read(std::optional<GtidPosition> position);
  void read_stream();
  void hand_over();
  /// Returns whether the thread is to go on.
  bool pause(Duration time);
  [[nodiscard]] std::optional<GtidPosition> first_position() const;

  const BinlogOptions options_;
  const ConnectionOptions server_;
  Context* context_;
  Counter* reconnects_;
  Counter* gaps_;
  ColumnCatalog catalog_;
  BinlogStream stream_;
  BinlogDecoder decoder_;
  std::optional<GtidPosition> begin_;

  std::mutex mutex_;  ///< guards what follows
  std::condition_variable changed_;
  Portion ready_;
  std::exception_ptr failure_;
  bool stopping_ = false;

  std::thread thread_;
};

}  // namespace millrace
