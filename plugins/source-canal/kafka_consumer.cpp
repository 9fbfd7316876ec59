#include "kafka_consumer.h"

#include <algorithm>
#include <array>
#include <utility>

#include <fmt/format.h>

#include "millrace/error.h"

namespace millrace {

namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr std::array<OwnProperty, 6> kOwn = {{{"group.id", "group"},
                                              {"auto.offset.reset", "start"},
                                              {"enable.auto.commit", ""},
                                              {"auto.commit.enable", ""},
                                              {"enable.auto.offset.store", ""},
                                              {"enable.partition.eof", ""}}};

Kafka<rd_kafka_topic_partition_list_t> list_of(const std::vector<Place>& places) {
  Kafka<rd_kafka_topic_partition_list_t> list(
      rd_kafka_topic_partition_list_new(static_cast<int>(places.size())));
  for (const Place& place : places) {
    rd_kafka_topic_partition_list_add(list.get(), place.topic.c_str(), place.partition);
  }
  return list;
}

Kafka<rd_kafka_topic_partition_list_t> list_of(const std::vector<PlaceOffset>& offsets) {
  Kafka<rd_kafka_topic_partition_list_t> list(
      rd_kafka_topic_partition_list_new(static_cast<int>(offsets.size())));
  for (const auto& [place, offset] : offsets) {
    rd_kafka_topic_partition_list_add(list.get(), place.topic.c_str(), place.partition)->offset =
        offset;
  }
  return list;
}

std::vector<PlaceOffset> offsets_in(const rd_kafka_topic_partition_list_t& list) {
  std::vector<PlaceOffset> offsets;
  offsets.reserve(static_cast<std::size_t>(list.cnt));
  for (int i = 0; i < list.cnt; ++i) {
    offsets.push_back({{list.elems[i].topic, list.elems[i].partition}, list.elems[i].offset});
  }
  return offsets;
}

/// The whole commit's error, or the first of a partition.
rd_kafka_resp_err_t error_in(rd_kafka_resp_err_t code,
                             const rd_kafka_topic_partition_list_t* list) {
  for (int i = 0; code == RD_KAFKA_RESP_ERR_NO_ERROR && list != nullptr && i < list->cnt; ++i) {
    code = list->elems[i].err;
  }
  return code;
}

}  // namespace

Kafka<rd_kafka_conf_t> kafka_configuration(const CanalOptions& options) {
  Kafka<rd_kafka_conf_t> conf = kafka_configuration(options.brokers, options.kafka, kOwn);
  set_property(conf.get(), "group.id", options.group, "group");
  set_property(conf.get(), "auto.offset.reset",
               options.start == StartAt::earliest ? "earliest" : "latest", "start");
  set_property(conf.get(), "enable.auto.commit", "false", "");
  set_property(conf.get(), "enable.auto.offset.store", "false", "");
  return conf;
}

KafkaConsumer::KafkaConsumer(const CanalOptions& options, Context& context, Listener& listener)
    : KafkaClient(options.brokers, "topics", "group", context),
      options_(options),
      listener_(listener),
      rebalances_(context.counter("rebalances")) {
  Kafka<rd_kafka_conf_t> conf = kafka_configuration(options);
  rd_kafka_conf_set_rebalance_cb(
      conf.get(),
      [](rd_kafka_t* /*client*/, rd_kafka_resp_err_t code, rd_kafka_topic_partition_list_t* places,
         void* self) { from(self).on_rebalance(code, places); });
  rd_kafka_conf_set_offset_commit_cb(
      conf.get(), [](rd_kafka_t* /*client*/, rd_kafka_resp_err_t code,
                     rd_kafka_topic_partition_list_t* offsets, void* opaque) {
        KafkaConsumer& self = from(opaque);
        self.guarded([&] {
          if (offsets == nullptr) return;
          const rd_kafka_resp_err_t error = error_in(code, offsets);
          self.listener_.committed(offsets_in(*offsets), error == RD_KAFKA_RESP_ERR_NO_ERROR
                                                             ? std::string()
                                                             : rd_kafka_err2str(error));
        });
      });
  start(RD_KAFKA_CONSUMER, std::move(conf));
}

void KafkaConsumer::join() {
  const auto give_up = steady_clock::now() + options_.wait;
  for (const std::string& topic : options_.topics) wait_for_topic(topic, give_up);
  std::vector<Place> wanted;
  for (const std::string& topic : options_.topics) wanted.push_back({topic, RD_KAFKA_PARTITION_UA});
  rd_kafka_poll_set_consumer(client());
  const rd_kafka_resp_err_t code = rd_kafka_subscribe(client(), list_of(wanted).get());
  if (code != RD_KAFKA_RESP_ERR_NO_ERROR) throw ConfigError("topics", rd_kafka_err2str(code));
}

Kafka<rd_kafka_message_t> KafkaConsumer::poll(milliseconds patience) {
  Kafka<rd_kafka_message_t> message(rd_kafka_consumer_poll(client(), in_ms(patience)));
  rethrow();
  if (!message) return message;
  const rd_kafka_resp_err_t code = message->err;
  if (code == RD_KAFKA_RESP_ERR_NO_ERROR) return message;
  const std::string reason = rd_kafka_message_errstr(message.get());
  if (code == RD_KAFKA_RESP_ERR__FATAL || is_refusal(code)) {
    throw std::runtime_error(fmt::format("the brokers refuse this consumer: {}", reason));
  }
  on_error(code, reason.c_str());
  return nullptr;
}

void KafkaConsumer::on_rebalance(rd_kafka_resp_err_t code, rd_kafka_topic_partition_list_t* list) {
  std::vector<Place> places;
  places.reserve(static_cast<std::size_t>(list->cnt));
  for (int i = 0; i < list->cnt; ++i) {
    places.push_back({list->elems[i].topic, list->elems[i].partition});
  }
  const bool assign = code == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
  const bool cooperative = std::string_view(rd_kafka_rebalance_protocol(client())) == "COOPERATIVE";
  if (!assign) {
    guarded([&] { listener_.revoked(places, rd_kafka_assignment_lost(client()) != 0); });
  }
  if (cooperative) {
    const Kafka<rd_kafka_error_t> error(assign ? rd_kafka_incremental_assign(client(), list)
                                               : rd_kafka_incremental_unassign(client(), list));
    if (error) on_error(rd_kafka_error_code(error.get()), rd_kafka_error_string(error.get()));
  } else {
    const rd_kafka_resp_err_t error = rd_kafka_assign(client(), assign ? list : nullptr);
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR) on_error(error, rd_kafka_err2str(error));
  }
  if (!assign) return;
  rebalances_.add();
  guarded([&] { listener_.assigned(places); });
}

void KafkaConsumer::pause(const std::vector<Place>& places) {
  if (!places.empty()) rd_kafka_pause_partitions(client(), list_of(places).get());
}

void KafkaConsumer::resume(const std::vector<Place>& places) {
  if (!places.empty()) rd_kafka_resume_partitions(client(), list_of(places).get());
}

std::string KafkaConsumer::seek(const PlaceOffset& to) {
  constexpr milliseconds kPatience{2000};
  const auto list = list_of(std::vector{to});
  const Kafka<rd_kafka_error_t> error(
      rd_kafka_seek_partitions(client(), list.get(), in_ms(kPatience)));
  if (error) return rd_kafka_error_string(error.get());
  const rd_kafka_resp_err_t code = list->elems[0].err;
  return code == RD_KAFKA_RESP_ERR_NO_ERROR ? std::string() : rd_kafka_err2str(code);
}

void KafkaConsumer::commit(const std::vector<PlaceOffset>& offsets) {
  const rd_kafka_resp_err_t code = rd_kafka_commit(client(), list_of(offsets).get(), 1);
  if (code != RD_KAFKA_RESP_ERR_NO_ERROR) listener_.committed(offsets, rd_kafka_err2str(code));
}

void KafkaConsumer::commit_now(const std::vector<PlaceOffset>& offsets, milliseconds patience) {
  const Kafka<rd_kafka_queue_t> queue(rd_kafka_queue_new(client()));
  rd_kafka_resp_err_t code =
      rd_kafka_commit_queue(client(), list_of(offsets).get(), queue.get(), nullptr, nullptr);
  if (code == RD_KAFKA_RESP_ERR_NO_ERROR) {
    const Kafka<rd_kafka_event_t> event(rd_kafka_queue_poll(queue.get(), in_ms(patience)));
    if (!event || rd_kafka_event_type(event.get()) != RD_KAFKA_EVENT_OFFSET_COMMIT) {
      code = RD_KAFKA_RESP_ERR__TIMED_OUT;
    } else {
      code = error_in(rd_kafka_event_error(event.get()),
                      rd_kafka_event_topic_partition_list(event.get()));
    }
  }
  if (code != RD_KAFKA_RESP_ERR_NO_ERROR) throw std::runtime_error(rd_kafka_err2str(code));
}

void KafkaConsumer::close(milliseconds patience) noexcept {
  guarded([&] {
    const Kafka<rd_kafka_queue_t> queue(rd_kafka_queue_new(client()));
    const Kafka<rd_kafka_error_t> error(rd_kafka_consumer_close_queue(client(), queue.get()));
    if (error) {
      context().warning(rd_kafka_error_string(error.get()));
      return;
    }
    const auto give_up = steady_clock::now() + patience;
    constexpr milliseconds kTurn{50};
    while (rd_kafka_consumer_closed(client()) == 0) {
      if (steady_clock::now() > give_up) {
        context().warning("left the group without the brokers' answer");
        return;
      }
      const Kafka<rd_kafka_event_t> event(rd_kafka_queue_poll(queue.get(), in_ms(kTurn)));
      if (event && rd_kafka_event_type(event.get()) == RD_KAFKA_EVENT_REBALANCE) {
        on_rebalance(rd_kafka_event_error(event.get()),
                     rd_kafka_event_topic_partition_list(event.get()));
      }
    }
  });
}

}  // namespace millrace
