#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "millrace/time.h"

#include "kafka_client.h"

namespace millrace {

using namespace std::chrono_literals;

enum class Compression : std::uint8_t { none, gzip, snappy, lz4, zstd };

struct KafkaOptions {
  std::string brokers = "127.0.0.1:9092";
  std::string topic{};
  Compression compression = Compression::lz4;
  std::uint32_t window = 10000;
  ByteSize buffer = 64_MiB;
  Duration timeout = 10s;
  Duration wait = 30s;
  std::map<std::string, std::string> kafka{};
};

/// The client's configuration: idempotent unless the option `kafka` says otherwise, and messages
/// never expire. Throws ConfigError that names the option.
[[nodiscard]] Kafka<rd_kafka_conf_t> producer_configuration(const KafkaOptions& options);

/// Writes messages to one topic. Threads: `poll` on one at a time, the others on any.
class KafkaProducer : private KafkaClient {
 public:
  /// Called from within `poll`.
  class Listener {
   public:
    Listener() = default;
    Listener(const Listener&) = delete;
    Listener& operator=(const Listener&) = delete;
    virtual ~Listener() = default;
    /// What became of the message that `produce` was given this number with.
    virtual void delivered(std::uint64_t number, rd_kafka_resp_err_t code) noexcept = 0;
  };

  KafkaProducer(const KafkaOptions& options, Context& context, Listener& listener);
  KafkaProducer(const KafkaProducer&) = delete;
  KafkaProducer& operator=(const KafkaProducer&) = delete;
  /// What is not acknowledged is thrown away, without waiting for brokers.
  ~KafkaProducer();

  /// Waits for the brokers and the topic as long as the option `wait` says. Throws ConfigError.
  void open();
  /// Copies key and value. The listener hears of it later unless an error is returned.
  [[nodiscard]] rd_kafka_resp_err_t produce(std::uint64_t number, std::string_view key,
                                            std::string_view value);
  void poll(milliseconds patience);
  using KafkaClient::guarded;
  using KafkaClient::rethrow;
  using KafkaClient::unreachable;
  using KafkaClient::watch;

 private:
  const KafkaOptions& options_;
  Listener& listener_;
  Kafka<rd_kafka_topic_t> topic_;
};

}  // namespace millrace
