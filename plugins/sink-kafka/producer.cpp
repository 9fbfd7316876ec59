#include "producer.h"

#include <array>
#include <chrono>
#include <utility>

#include "millrace/error.h"

namespace millrace {

namespace {

constexpr std::array<OwnProperty, 10> kOwn = {{{"compression.codec", "compression"},
                                               {"compression.type", "compression"},
                                               {"queue.buffering.max.messages", "window"},
                                               {"queue.buffering.max.kbytes", "buffer"},
                                               {"message.timeout.ms", ""},
                                               {"delivery.timeout.ms", ""},
                                               {"delivery.report.only.error", ""},
                                               {"enable.gapless.guarantee", ""},
                                               {"produce.offset.report", ""},
                                               {"transactional.id", ""}}};

constexpr std::array<const char*, 5> kCodecs = {"none", "gzip", "snappy", "lz4", "zstd"};

}  // namespace

Kafka<rd_kafka_conf_t> producer_configuration(const KafkaOptions& options) {
  Kafka<rd_kafka_conf_t> conf = kafka_configuration(options.brokers, options.kafka, kOwn);
  if (!options.kafka.contains("enable.idempotence")) {
    set_property(conf.get(), "enable.idempotence", "true", "kafka");
  }
  for (const char* acks : {"acks", "request.required.acks"}) {
    const auto found = options.kafka.find(acks);
    if (found != options.kafka.end() && found->second == "0") {
      throw ConfigError("kafka", "with acks = 0 no broker says that it has a message");
    }
  }
  set_property(conf.get(), "compression.codec",
               kCodecs[static_cast<std::size_t>(options.compression)], "compression");
  // An expired message could only be sent again, and then may be there twice and out of order.
  set_property(conf.get(), "message.timeout.ms", "0", "");
  // The stage counts by itself, with what waits behind the messages; these are the highest.
  set_property(conf.get(), "queue.buffering.max.messages", "10000000", "");
  set_property(conf.get(), "queue.buffering.max.kbytes", "2147483647", "");
  return conf;
}

KafkaProducer::KafkaProducer(const KafkaOptions& options, Context& context, Listener& listener)
    : KafkaClient(options.brokers, "topic", "kafka", context),
      options_(options),
      listener_(listener) {
  Kafka<rd_kafka_conf_t> conf = producer_configuration(options);
  rd_kafka_conf_set_dr_msg_cb(
      conf.get(), [](rd_kafka_t* /*client*/, const rd_kafka_message_t* message, void* opaque) {
        auto& self = static_cast<KafkaProducer&>(*static_cast<KafkaClient*>(opaque));
        self.listener_.delivered(reinterpret_cast<std::uintptr_t>(message->_private), message->err);
      });
  start(RD_KAFKA_PRODUCER, std::move(conf));
}

KafkaProducer::~KafkaProducer() {
  rd_kafka_purge(
      client(), RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT | RD_KAFKA_PURGE_F_NON_BLOCKING);
  topic_.reset();
  drop_client();
}

void KafkaProducer::open() {
  wait_for_topic(options_.topic, std::chrono::steady_clock::now() + options_.wait);
  topic_.reset(rd_kafka_topic_new(client(), options_.topic.c_str(), nullptr));
  if (!topic_) throw ConfigError("topic", rd_kafka_err2str(rd_kafka_last_error()));
}

rd_kafka_resp_err_t KafkaProducer::produce(std::uint64_t number, std::string_view key,
                                           std::string_view value) {
  // The library copies the value and does not write to it.
  void* payload = const_cast<char*>(value.data());
  // NOLINTNEXTLINE(performance-no-int-to-ptr): the library only hands it back
  void* tag = reinterpret_cast<void*>(static_cast<std::uintptr_t>(number));
  const int failed = rd_kafka_produce(topic_.get(), RD_KAFKA_PARTITION_UA, RD_KAFKA_MSG_F_COPY,
                                      payload, value.size(), key.data(), key.size(), tag);
  return failed == 0 ? RD_KAFKA_RESP_ERR_NO_ERROR : rd_kafka_last_error();
}

void KafkaProducer::poll(milliseconds patience) { rd_kafka_poll(client(), in_ms(patience)); }

}  // namespace millrace
