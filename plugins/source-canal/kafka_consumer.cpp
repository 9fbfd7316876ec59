#include "kafka_consumer.h"

#include <algorithm>
#include <array>
#include <future>
#include <string_view>
#include <thread>
#include <utility>

#include <fmt/format.h>
#include <syslog.h>

#include "millrace/error.h"

#include "json_value.h"

namespace millrace {

namespace {

using std::chrono::duration_cast;
using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

/// What the stage sets itself, and the option that it is set by.
struct OwnProperty {
  std::string_view name;
  std::string_view option;
};
constexpr std::array<OwnProperty, 9> kOwn = {{{"bootstrap.servers", "brokers"},
                                              {"metadata.broker.list", "brokers"},
                                              {"group.id", "group"},
                                              {"auto.offset.reset", "start"},
                                              {"enable.auto.commit", ""},
                                              {"auto.commit.enable", ""},
                                              {"enable.auto.offset.store", ""},
                                              {"enable.partition.eof", ""},
                                              {"statistics.interval.ms", ""}}};

void set(rd_kafka_conf_t* conf, const std::string& name, const std::string& value,
         const std::string& option) {
  std::array<char, 512> reason{};
  if (rd_kafka_conf_set(conf, name.c_str(), value.c_str(), reason.data(), reason.size()) !=
      RD_KAFKA_CONF_OK) {
    throw ConfigError(option, reason.data());
  }
}

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

bool is_refusal(rd_kafka_resp_err_t code) {
  return code == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED ||
         code == RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED ||
         code == RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED ||
         code == RD_KAFKA_RESP_ERR_INVALID_GROUP_ID || code == RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION ||
         code == RD_KAFKA_RESP_ERR__AUTHENTICATION ||
         code == RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED;
}

int in_ms(milliseconds time) { return static_cast<int>(std::max<std::int64_t>(0, time.count())); }

}  // namespace

void DeleteKafka::operator()(rd_kafka_t* client) const noexcept {
  // Leaving the group properly is KafkaConsumer::close; this one must not wait. But
  // librdkafka 2.0.2 does, and was seen to do so for ever, when the group was in the middle of a
  // change. Then it is left to the end of the process; nothing of ours is called from its threads
  // but for its log.
  constexpr std::chrono::seconds kPatience{5};
  rd_kafka_set_log_level(client, 0);
  try {
    std::promise<void> gone;
    const std::future<void> waiting = gone.get_future();
    std::thread([client, gone = std::move(gone)]() mutable {
      rd_kafka_destroy_flags(client, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
      gone.set_value();
    }).detach();
    waiting.wait_for(kPatience);
  } catch (const std::exception&) {  // no thread to be had
    rd_kafka_destroy_flags(client, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
  }
}

Kafka<rd_kafka_conf_t> kafka_configuration(const CanalOptions& options) {
  Kafka<rd_kafka_conf_t> conf(rd_kafka_conf_new());
  set(conf.get(), "client.id", "millrace", "kafka");
  set(conf.get(), "log.connection.close", "false", "kafka");
  for (const auto& [name, value] : options.kafka) {
    const auto* const own = std::find_if(
        kOwn.begin(), kOwn.end(), [&name = name](const auto& one) { return one.name == name; });
    if (own != kOwn.end()) {
      throw ConfigError("kafka",
                        own->option.empty()
                            ? fmt::format("'{}' is this stage's own affair", name)
                            : fmt::format("'{}' is set by the option '{}'", name, own->option));
    }
    set(conf.get(), name, value, "kafka");
  }
  set(conf.get(), "bootstrap.servers", options.brokers, "brokers");
  set(conf.get(), "group.id", options.group, "group");
  set(conf.get(), "auto.offset.reset", options.start == StartAt::earliest ? "earliest" : "latest",
      "start");
  set(conf.get(), "enable.auto.commit", "false", "");
  set(conf.get(), "enable.auto.offset.store", "false", "");
  // They tell when a broker is back, without a request that would wait behind others.
  set(conf.get(), "statistics.interval.ms", "1000", "");
  return conf;
}

KafkaConsumer::KafkaConsumer(const CanalOptions& options, Context& context, Listener& listener)
    : options_(options),
      context_(context),
      listener_(listener),
      reconnects_(context.counter("reconnects")),
      rebalances_(context.counter("rebalances")) {
  Kafka<rd_kafka_conf_t> conf = kafka_configuration(options);
  rd_kafka_conf_set_opaque(conf.get(), this);
  rd_kafka_conf_set_error_cb(
      conf.get(), [](rd_kafka_t* /*client*/, int code, const char* reason, void* self) {
        static_cast<KafkaConsumer*>(self)->on_error(static_cast<rd_kafka_resp_err_t>(code), reason);
      });
  rd_kafka_conf_set_log_cb(
      conf.get(), [](const rd_kafka_t* client, int level, const char* facility, const char* text) {
        static_cast<KafkaConsumer*>(rd_kafka_opaque(client))->on_log(level, facility, text);
      });
  rd_kafka_conf_set_rebalance_cb(
      conf.get(),
      [](rd_kafka_t* /*client*/, rd_kafka_resp_err_t code, rd_kafka_topic_partition_list_t* places,
         void* self) { static_cast<KafkaConsumer*>(self)->on_rebalance(code, places); });
  rd_kafka_conf_set_offset_commit_cb(
      conf.get(), [](rd_kafka_t* /*client*/, rd_kafka_resp_err_t code,
                     rd_kafka_topic_partition_list_t* offsets, void* opaque) {
        auto& self = *static_cast<KafkaConsumer*>(opaque);
        self.guarded([&] {
          if (offsets == nullptr) return;
          const rd_kafka_resp_err_t error = error_in(code, offsets);
          self.listener_.committed(offsets_in(*offsets), error == RD_KAFKA_RESP_ERR_NO_ERROR
                                                             ? std::string()
                                                             : rd_kafka_err2str(error));
        });
      });
  rd_kafka_conf_set_stats_cb(
      conf.get(), [](rd_kafka_t* /*client*/, char* json, std::size_t size, void* opaque) {
        auto& self = *static_cast<KafkaConsumer*>(opaque);
        self.guarded([&] { self.on_statistics({json, size}); });
        return 0;  // librdkafka frees it
      });
  std::array<char, 512> reason{};
  client_.reset(rd_kafka_new(RD_KAFKA_CONSUMER, conf.get(), reason.data(), reason.size()));
  if (!client_) throw ConfigError("kafka", reason.data());
  // The client has taken it over.
  static_cast<void>(conf.release());
}

void KafkaConsumer::refuse(rd_kafka_resp_err_t code, const std::string& reason) const {
  const bool about_topics = code == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED ||
                            code == RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION;
  const bool about_login = code == RD_KAFKA_RESP_ERR__AUTHENTICATION ||
                           code == RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED;
  throw ConfigError(about_topics ? "topics" : about_login ? "kafka" : "group", reason);
}

std::string KafkaConsumer::problem_of(const std::string& name) {
  constexpr milliseconds kPatience{500};
  const Kafka<rd_kafka_topic_t> topic(rd_kafka_topic_new(client_.get(), name.c_str(), nullptr));
  if (!topic) refuse(rd_kafka_last_error(), rd_kafka_err2str(rd_kafka_last_error()));
  const rd_kafka_metadata_t* raw = nullptr;
  const rd_kafka_resp_err_t code =
      rd_kafka_metadata(client_.get(), 0, topic.get(), &raw, in_ms(kPatience));
  rd_kafka_poll(client_.get(), 0);
  if (is_refusal(last_error_)) refuse(last_error_, last_reason_);
  if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
    if (is_refusal(code)) refuse(code, rd_kafka_err2str(code));
    return fmt::format("no answer from {}: {}", options_.brokers,
                       last_reason_.empty() ? rd_kafka_err2str(code) : last_reason_);
  }
  const Kafka<const rd_kafka_metadata_t> answer(raw);
  for (int i = 0; i < answer->topic_cnt; ++i) {
    const rd_kafka_metadata_topic_t& one = answer->topics[i];
    if (one.topic != name || one.err == RD_KAFKA_RESP_ERR_NO_ERROR) continue;
    std::string text = fmt::format("topic '{}': {}", name, rd_kafka_err2str(one.err));
    if (is_refusal(one.err)) refuse(one.err, text);
    return text;
  }
  return {};
}

void KafkaConsumer::join() {
  constexpr milliseconds kPause{200};
  const auto begun = steady_clock::now();
  std::string told;
  for (const std::string& topic : options_.topics) {
    // A pattern may well match nothing yet, but somebody must answer.
    while (true) {
      last_reason_.clear();
      const std::string problem = problem_of(topic);
      if (problem.empty()) break;
      const bool no_answer = problem.starts_with("no answer");
      if (!no_answer && topic.starts_with('^')) break;
      if (steady_clock::now() - begun >= options_.wait) {
        throw ConfigError(no_answer ? "brokers" : "topics", problem);
      }
      if (std::exchange(told, problem) != problem) {
        context_.warning(fmt::format("{}; waiting", problem));
      }
      std::this_thread::sleep_for(kPause);
    }
  }
  if (!told.empty()) context_.info("the brokers have what was waited for");
  std::vector<Place> wanted;
  for (const std::string& topic : options_.topics) wanted.push_back({topic, RD_KAFKA_PARTITION_UA});
  rd_kafka_poll_set_consumer(client_.get());
  const rd_kafka_resp_err_t code = rd_kafka_subscribe(client_.get(), list_of(wanted).get());
  if (code != RD_KAFKA_RESP_ERR_NO_ERROR) throw ConfigError("topics", rd_kafka_err2str(code));
}

Kafka<rd_kafka_message_t> KafkaConsumer::poll(milliseconds patience) {
  Kafka<rd_kafka_message_t> message(rd_kafka_consumer_poll(client_.get(), in_ms(patience)));
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

void KafkaConsumer::on_error(rd_kafka_resp_err_t code, const char* reason) {
  // That all are down is told after why they are.
  if (code != RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN || last_reason_.empty()) {
    last_error_ = code;
    last_reason_ = reason;
  }
  if (code == RD_KAFKA_RESP_ERR__FATAL) {
    guarded([this] {
      std::array<char, 512> text{};
      rd_kafka_fatal_error(client_.get(), text.data(), text.size());
      throw std::runtime_error(text.data());
    });
    return;
  }
  if (code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN) {
    if (!lost_) lost_ = next_complaint_ = steady_clock::now();
    return;
  }
  // One broker of several; the client goes to another by itself.
  const bool network = code == RD_KAFKA_RESP_ERR__TRANSPORT || code == RD_KAFKA_RESP_ERR__RESOLVE ||
                       code == RD_KAFKA_RESP_ERR__TIMED_OUT;
  context_.log(network ? LogLevel::debug : LogLevel::warning, reason);
}

void KafkaConsumer::watch() {
  constexpr seconds kComplain{10};
  if (!lost_) return;
  const auto now = steady_clock::now();
  if (now >= next_complaint_) {
    context_.warning(fmt::format("no broker of {} can be reached for {} s: {}", options_.brokers,
                                 duration_cast<seconds>(now - *lost_).count(), last_reason_));
    next_complaint_ = now + kComplain;
  }
}

void KafkaConsumer::on_statistics(std::string_view statistics) {
  if (!lost_) return;
  const JsonValue all = parse_json(statistics);
  const auto& brokers = all["brokers"].members;
  const bool back = std::any_of(brokers.begin(), brokers.end(), [](const auto& broker) {
    return broker.second["state"].string() == "UP";
  });
  if (!back) return;
  lost_.reset();
  reconnects_.add();
  context_.info(fmt::format("{} answers again", options_.brokers));
}

void KafkaConsumer::on_log(int level, const char* facility, const char* text) {
  const std::string_view what = facility;
  // What the error callback says as well, and once for every attempt to connect.
  const bool repeated = what == "FAIL" || what == "ERROR" || what == "FAIL_BROKER";
  LogLevel as = LogLevel::debug;
  if (!repeated && level <= LOG_WARNING) {
    as = LogLevel::warning;
  } else if (!repeated && level <= LOG_INFO) {
    as = LogLevel::info;
  }
  try {
    context_.log(as, fmt::format("librdkafka: {}: {}", facility, text));
  } catch (...) {  // NOLINT(bugprone-empty-catch): a line less, on a thread of librdkafka
  }
}

void KafkaConsumer::on_rebalance(rd_kafka_resp_err_t code, rd_kafka_topic_partition_list_t* list) {
  std::vector<Place> places;
  places.reserve(static_cast<std::size_t>(list->cnt));
  for (int i = 0; i < list->cnt; ++i) {
    places.push_back({list->elems[i].topic, list->elems[i].partition});
  }
  const bool assign = code == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
  const bool cooperative =
      std::string_view(rd_kafka_rebalance_protocol(client_.get())) == "COOPERATIVE";
  if (!assign) {
    guarded([&] { listener_.revoked(places, rd_kafka_assignment_lost(client_.get()) != 0); });
  }
  if (cooperative) {
    const Kafka<rd_kafka_error_t> error(assign
                                            ? rd_kafka_incremental_assign(client_.get(), list)
                                            : rd_kafka_incremental_unassign(client_.get(), list));
    if (error) on_error(rd_kafka_error_code(error.get()), rd_kafka_error_string(error.get()));
  } else {
    const rd_kafka_resp_err_t error = rd_kafka_assign(client_.get(), assign ? list : nullptr);
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR) on_error(error, rd_kafka_err2str(error));
  }
  if (!assign) return;
  rebalances_.add();
  guarded([&] { listener_.assigned(places); });
}

void KafkaConsumer::pause(const std::vector<Place>& places) {
  if (!places.empty()) rd_kafka_pause_partitions(client_.get(), list_of(places).get());
}

void KafkaConsumer::resume(const std::vector<Place>& places) {
  if (!places.empty()) rd_kafka_resume_partitions(client_.get(), list_of(places).get());
}

std::string KafkaConsumer::seek(const PlaceOffset& to) {
  constexpr milliseconds kPatience{2000};
  const auto list = list_of(std::vector{to});
  const Kafka<rd_kafka_error_t> error(
      rd_kafka_seek_partitions(client_.get(), list.get(), in_ms(kPatience)));
  if (error) return rd_kafka_error_string(error.get());
  const rd_kafka_resp_err_t code = list->elems[0].err;
  return code == RD_KAFKA_RESP_ERR_NO_ERROR ? std::string() : rd_kafka_err2str(code);
}

void KafkaConsumer::commit(const std::vector<PlaceOffset>& offsets) {
  const rd_kafka_resp_err_t code = rd_kafka_commit(client_.get(), list_of(offsets).get(), 1);
  if (code != RD_KAFKA_RESP_ERR_NO_ERROR) listener_.committed(offsets, rd_kafka_err2str(code));
}

void KafkaConsumer::commit_now(const std::vector<PlaceOffset>& offsets, milliseconds patience) {
  const Kafka<rd_kafka_queue_t> queue(rd_kafka_queue_new(client_.get()));
  rd_kafka_resp_err_t code =
      rd_kafka_commit_queue(client_.get(), list_of(offsets).get(), queue.get(), nullptr, nullptr);
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
    const Kafka<rd_kafka_queue_t> queue(rd_kafka_queue_new(client_.get()));
    const Kafka<rd_kafka_error_t> error(rd_kafka_consumer_close_queue(client_.get(), queue.get()));
    if (error) {
      context_.warning(rd_kafka_error_string(error.get()));
      return;
    }
    const auto give_up = steady_clock::now() + patience;
    constexpr milliseconds kTurn{50};
    while (rd_kafka_consumer_closed(client_.get()) == 0) {
      if (steady_clock::now() > give_up) {
        context_.warning("left the group without the brokers' answer");
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

void KafkaConsumer::guarded(const std::function<void()>& function) noexcept {
  try {
    function();
  } catch (...) {
    thrown_ = std::current_exception();
  }
}

void KafkaConsumer::rethrow() {
  if (thrown_) std::rethrow_exception(std::exchange(thrown_, nullptr));
}

}  // namespace millrace
