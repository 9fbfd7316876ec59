#pragma once

#include <string>
#include <vector>

#include "canal_options.h"
#include "kafka_client.h"
#include "offset_tracker.h"

namespace millrace {

/// The client's configuration. Throws ConfigError that names the option.
[[nodiscard]] Kafka<rd_kafka_conf_t> kafka_configuration(const CanalOptions& options);

/// A member of a consumer group. One thread.
class KafkaConsumer : private KafkaClient {
 public:
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
  ~KafkaConsumer() { drop_client(); }

  /// Waits for the brokers and topics as long as the option `wait` says, then joins the group.
  /// Throws ConfigError.
  void join();
  /// The next message, or none within `patience`. Throws std::runtime_error if the brokers refuse
  /// this consumer for good, and what the listener has thrown.
  [[nodiscard]] Kafka<rd_kafka_message_t> poll(milliseconds patience);
  using KafkaClient::watch;

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
  static KafkaConsumer& from(void* opaque) {
    return static_cast<KafkaConsumer&>(*static_cast<KafkaClient*>(opaque));
  }
  void on_rebalance(rd_kafka_resp_err_t code, rd_kafka_topic_partition_list_t* places);

  const CanalOptions& options_;
  Listener& listener_;
  Counter& rebalances_;
};

}  // namespace millrace
