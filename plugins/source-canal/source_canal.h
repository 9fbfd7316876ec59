#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "millrace/change.h"
#include "millrace/plugin.h"
#include "millrace/stage.h"

#include "canal_options.h"
#include "kafka_consumer.h"
#include "offset_tracker.h"

namespace millrace {

/// Options that cannot work whatever the brokers say.
void check_canal_options(const CanalOptions& options, Findings& findings);

/// Reads the changes of rows that Canal, Debezium or Maxwell have written to Kafka. An offset is
/// committed when every batch up to it is delivered; a batch that fails is read again.
class SourceCanal final : public Source<Change>, private KafkaConsumer::Listener {
 public:
  explicit SourceCanal(const CanalOptions& options) : options_(options) {}

  void open(Context& context) override;
  void run(Output<Change>& out, std::stop_token stop) override;
  void close() noexcept override;

 private:
  using Time = std::chrono::steady_clock::time_point;
  struct Resolved {
    std::uint64_t batch = 0;
    Outcome outcome = Outcome::failed;
  };
  /// What receipts tell; outlives the stage if a receipt does.
  struct Inbox {
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<Resolved> resolved;
    std::size_t outstanding = 0;
  };
  struct Range {
    std::int64_t first = 0;
    std::int64_t next = 0;
  };
  /// A batch that is being filled, and which messages are in it.
  struct Filling {
    Batch<Change> batch;
    std::map<Place, Range> ranges;
  };
  /// Where a partition is read again, and when.
  struct Rewind {
    std::int64_t offset = 0;
    Time due;
  };

  void assigned(const std::vector<Place>& places) override;
  void revoked(const std::vector<Place>& places, bool lost) override;
  void committed(const std::vector<PlaceOffset>& offsets, const std::string& error) override;

  /// Waits a little if the window is full. Returns whether there is room.
  bool room();
  void hold_partitions();
  void resume_partitions();
  /// Fills a batch with what is there. Returns false at a message that ends the run.
  bool collect(Filling& filling, const std::stop_token& stop);
  bool take(Filling& filling, const rd_kafka_message_t& message);
  void warn_of_rows_that_went(const rd_kafka_message_t& message, const std::string& table) const;
  void keep_wanted(ChangeMessage& message, Filling& filling);
  void push(Filling filling, Output<Change>& out);
  /// Learns from the receipts what may be committed and what has to be read again.
  void settle();
  void rewind_what_is_due();
  void commit_what_is_due();
  void wait_for_receipts(Output<Change>& out);
  /// What was read of the partition and not given on yet counts as not read.
  void let_go(const Place& place);
  void report_unreadable(const rd_kafka_message_t& message, const std::string& reason);

  const CanalOptions options_;
  const std::set<std::string, std::less<>> tables_{options_.tables.begin(), options_.tables.end()};
  Context* context_ = nullptr;
  Counter* messages_ = nullptr;
  Counter* again_ = nullptr;
  Counter* before_unknown_ = nullptr;

  std::shared_ptr<Inbox> inbox_ = std::make_shared<Inbox>();
  OffsetTracker tracker_;
  std::uint64_t next_batch_ = 0;
  std::set<Place> places_;  ///< assigned
  std::map<Place, Rewind> rewinds_;
  std::optional<Time> full_since_;
  bool closing_ = false;
  bool held_ = false;               ///< the partitions are paused because the window is full
  Filling* filling_ = nullptr;      ///< while it is being filled: a rebalance may take from it
  Kafka<rd_kafka_message_t> left_;  ///< came although the partitions are paused
  Time next_commit_;
  Time next_commit_complaint_;
  Time complaints_since_;
  std::uint32_t complaints_ = 0;
  std::string unreadable_;  ///< why the run has to end

  std::unique_ptr<KafkaConsumer> consumer_;
};

}  // namespace millrace
