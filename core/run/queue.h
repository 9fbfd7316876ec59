#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <vector>

#include "millrace/batch.h"
#include "millrace/stage.h"

#include "config/pipeline_file.h"

namespace millrace::host {

/// The bounded queue in front of a stage that has threads of its own.
///
/// Several producers may push and several workers pop. The watermark of what is popped is the
/// lowest of the producers' latest, so time never runs ahead of the slowest input.
class BatchQueue {
 public:
  /// The bound on batches only holds once `items` items wait: while a stage works on as many as it
  /// wants at once, the next as many can come together.
  BatchQueue(const QueueOptions& options, std::size_t producers, std::size_t items = 0);

  /// Takes the batch, or returns what was dropped instead (the batch itself or older ones, as
  /// `when_full` says). Blocks while the queue is full and blocking is what it does.
  std::vector<BoxedBatch> push(BoxedBatch batch, std::size_t producer);
  void producer_done(std::size_t producer);

  struct Popped {
    enum class Kind : std::uint8_t { batch, idle, end } kind = Kind::end;
    BoxedBatch batch;               ///< for `batch`
    std::uint64_t number = 0;       ///< for `batch`: 0, 1, 2, ... in the order of the queue
    Timestamp watermark = kNoTime;  ///< for `idle`
  };
  /// The next batch, joined with those behind it as `coalesce` says; `idle` if none comes within
  /// `patience`; `end` when all producers are done and nothing is left.
  Popped pop(const Coalesce& coalesce, std::chrono::milliseconds patience);

  /// While set, a full queue drops what comes (as drop-newest) and does not block: the stage behind
  /// it is not required and cannot take anything at present.
  void set_lossy(bool lossy);
  /// Nobody pops any more: what waits and what comes is returned as dropped.
  std::vector<BoxedBatch> abandon();
  /// Batches in the queue at this moment.
  [[nodiscard]] std::size_t waiting() {
    const std::lock_guard lock(mutex_);
    return entries_.size();
  }

 private:
  struct Entry {
    BoxedBatch batch;
    std::size_t producer;
    std::size_t bytes;
    std::size_t items;
  };

  [[nodiscard]] bool full_for(std::size_t bytes) const;
  BoxedBatch take_front();

  const QueueOptions options_;
  const std::size_t least_items_;
  std::mutex mutex_;
  std::condition_variable room_;
  std::condition_variable filled_;
  std::deque<Entry> entries_;
  std::size_t bytes_ = 0;
  std::size_t items_ = 0;
  std::uint64_t next_number_ = 0;
  std::size_t open_producers_;
  std::vector<Timestamp> watermarks_;  // by producer, of what was popped
  std::vector<std::uint8_t> done_;     // by producer
  Timestamp watermark_ = kNoTime;
  bool lossy_ = false;
  bool abandoned_ = false;
  bool forming_ = false;  // a worker is joining batches
};

}  // namespace millrace::host
