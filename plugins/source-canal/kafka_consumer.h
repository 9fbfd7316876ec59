#pragma once

#include <chrono>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <librdkafka/rdkafka.h>

#include "millrace/context.h"

#include "canal_options.h"
#include "offset_tracker.h"

namespace millrace {

struct DeleteKafka {
  void operator()(rd_kafka_t* client) const noexcept;
  void operator()(rd_kafka_conf_t* conf) const noexcept { rd_kafka_conf_destroy(conf); }
  void operator()(rd_kafka_queue_t* queue) const noexcept { rd_kafka_queue_destroy(queue); }
  void operator()(rd_kafka_message_t* message) const noexcept { rd_kafka_message_destroy(message); }
  void operator()(rd_kafka_event_t* event) const noexcept { rd_kafka_event_destroy(event); }
  void operator()(rd_kafka_error_t* error) const noexcept { rd_kafka_error_destroy(error); }
  void operator()(rd_kafka_topic_t* topic) const noexcept { rd_kafka_topic_destroy(topic); }
  void operator()(const rd_kafka_metadata_t* answer) const noexcept {
    rd_kafka_metadata_destroy(answer);
  }
  void operator()(rd_kafka_topic_partition_list_t* list) const noexcept {
    rd_kafka_topic_partition_list_destroy(list);
  }
};
template <class T>
using Kafka = std::unique_ptr<T, DeleteKafka>;

/// The client's configuration. Throws ConfigError that names the option.
[[nodiscard]] Kafka<rd_kafka_conf_t> kafka_configuration(const CanalOptions& options);

/// A member of a consumer group. One thread, except that librdkafka's threads log by the context.
class KafkaConsumer {
 public:
  using milliseconds = std::chrono::milliseconds;

  /// Called from within `poll` and `close`.
  class Listener {
   public:
    Listener() = default;
    Listener(const Listener&) = delete;
    Listener& operator=(const Listener&) = delete;
    virtual ~Listener() = default;
    virtual void assigned(const std::vector<Place>& places) = 0;
    /// They may still be committed now, unless they are `lost`.
    virtual void revoked(const std::vector<Place>& places, bool lost) = 0;
    /// What became of `commit`. `error`: empty if it is done.
    virtual void committed(const std::vector<PlaceOffset>& offsets, const std::string& error) = 0;
  };

  KafkaConsumer(const CanalOptions& options, Context& context, Listener& listener);
  KafkaConsumer(const KafkaConsumer&) = delete;
  KafkaConsumer& operator=(const KafkaConsumer&) = delete;
  ~KafkaConsumer() = default;

  /// Waits for the brokers and topics as long as the option `wait` says, then joins the group.
  /// Throws ConfigError.
  void join();
  /// The next message, or none within `patience`. Throws std::runtime_error if the brokers refuse
  /// this consumer for good, and what the listener has thrown.
  [[nodiscard]] Kafka<rd_kafka_message_t> poll(milliseconds patience);
  /// Says from time to time that no broker can be reached; to be called about every 100 ms.
  void watch();

  void pause(const std::vector<Place>& places);
  void resume(const std::vector<Place>& places);
  /// Returns what is wrong, or nothing.
  [[nodiscard]] std::string seek(const PlaceOffset& to);

  /// The listener hears of it later.
  void commit(const std::vector<PlaceOffset>& offsets);
  /// Returns when it is done, or else throws std::runtime_error.
  void commit_now(const std::vector<PlaceOffset>& offsets, milliseconds patience);
  /// Leaves the group.
  void close(milliseconds patience) noexcept;

 private:
  using Time = std::chrono::steady_clock::time_point;

  void on_error(rd_kafka_resp_err_t code, const char* reason);
  void on_rebalance(rd_kafka_resp_err_t code, rd_kafka_topic_partition_list_t* places);
  void on_statistics(std::string_view statistics);
  void on_log(int level, const char* facility, const char* text);
  /// Keeps what `function` throws for after librdkafka's own frames.
  void guarded(const std::function<void()>& function) noexcept;
  void rethrow();
  /// What is wrong with a topic now, or nothing; throws ConfigError if waiting is no use.
  [[nodiscard]] std::string problem_of(const std::string& topic);
  [[noreturn]] void refuse(rd_kafka_resp_err_t code, const std::string& reason) const;

  const CanalOptions& options_;
  Context& context_;
  Listener& listener_;
  Counter& reconnects_;
  Counter& rebalances_;

  std::exception_ptr thrown_;
  rd_kafka_resp_err_t last_error_ = RD_KAFKA_RESP_ERR_NO_ERROR;
  std::string last_reason_;
  std::optional<Time> lost_;  ///< since when no broker can be reached
  Time next_complaint_;

  Kafka<rd_kafka_t> client_;  ///< last: its callbacks use the above
};

}  // namespace millrace
