#pragma once

#include <chrono>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include <librdkafka/rdkafka.h>

#include "millrace/context.h"

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

/// A property of librdkafka that a stage sets itself, and the option that it is set by; none: it is
/// the stage's own affair.
struct OwnProperty {
  std::string_view name;
  std::string_view option;
};

/// Throws ConfigError for `option` if librdkafka does not take it.
void set_property(rd_kafka_conf_t* conf, const std::string& name, const std::string& value,
                  const std::string& option);

/// The configuration of a client with the values of the options `brokers` and `kafka`. The latter
/// must not hold any of `own`. Throws ConfigError that names the option.
[[nodiscard]] Kafka<rd_kafka_conf_t> kafka_configuration(
    const std::string& brokers, const std::map<std::string, std::string>& properties,
    std::span<const OwnProperty> own);

/// The brokers will not have this user or what he wants, and waiting is no use.
[[nodiscard]] bool is_refusal(rd_kafka_resp_err_t code) noexcept;

[[nodiscard]] int in_ms(std::chrono::nanoseconds time);

/// What a consumer and a producer have in common: log, errors, and whether any broker can be
/// reached. librdkafka's threads log by the context; otherwise any thread.
class KafkaClient {
 public:
  using milliseconds = std::chrono::milliseconds;

  KafkaClient(const KafkaClient&) = delete;
  KafkaClient& operator=(const KafkaClient&) = delete;

  /// Says from time to time that no broker can be reached; to be called about every 100 ms.
  void watch();
  /// Why no broker can be reached at present; nothing: one can.
  [[nodiscard]] std::optional<std::string> unreachable() const;

 protected:
  /// `topic_option` and `group_option`: what is wrong where brokers refuse a topic, or anything
  /// but that and the user.
  KafkaClient(std::string brokers, std::string topic_option, std::string group_option,
              Context& context);
  ~KafkaClient() = default;

  /// Makes the client; its callbacks' opaque pointer is this object. Throws ConfigError.
  void start(rd_kafka_type_t kind, Kafka<rd_kafka_conf_t> conf);
  /// Waits for an answer of a broker, and for a topic to be there (one that begins with ^ need
  /// not). Throws ConfigError when `give_up` has come, or at once if waiting is no use.
  void wait_for_topic(const std::string& topic, std::chrono::steady_clock::time_point give_up);

  void on_error(rd_kafka_resp_err_t code, const char* reason);
  /// Keeps what `function` throws for after librdkafka's own frames.
  void guarded(const std::function<void()>& function) noexcept;
  void rethrow();
  [[nodiscard]] rd_kafka_t* client() const noexcept { return client_.get(); }
  [[nodiscard]] Context& context() const noexcept { return context_; }
  void drop_client() noexcept { client_.reset(); }

 private:
  using Time = std::chrono::steady_clock::time_point;

  void on_statistics(std::string_view statistics);
  void on_log(int level, const char* facility, const char* text);
  /// What is wrong with a topic now, or nothing; throws ConfigError if waiting is no use.
  [[nodiscard]] std::string problem_of(const std::string& topic);
  [[noreturn]] void refuse(rd_kafka_resp_err_t code, const std::string& reason) const;
  /// Needs the lock.
  [[nodiscard]] std::string describe_loss(Time now) const;

  const std::string brokers_;
  const std::string topic_option_;
  const std::string group_option_;
  Context& context_;
  Counter& reconnects_;

  mutable std::mutex mutex_;
  std::exception_ptr thrown_;
  rd_kafka_resp_err_t last_error_ = RD_KAFKA_RESP_ERR_NO_ERROR;
  std::string last_reason_;
  std::optional<Time> lost_;  ///< since when no broker can be reached
  Time next_complaint_;

  Kafka<rd_kafka_t> client_;  ///< last: its callbacks use the above
};

}  // namespace millrace
