#include "kafka_client.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <future>
#include <stdexcept>
#include <thread>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <syslog.h>

#include "millrace/error.h"

#include "host_fault.h"

namespace millrace {

using std::chrono::duration_cast;
using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

void DeleteKafka::operator()(rd_kafka_t* client) const noexcept {
  // Leaving a group properly is KafkaConsumer::close; this one must not wait. But librdkafka 2.0.2
  // does, and was seen to do so for ever, when the group was in the middle of a change. Then it is
  // left to the end of the process; nothing of ours is called from its threads but for its log.
  constexpr seconds kPatience{5};
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

void set_property(rd_kafka_conf_t* conf, const std::string& name, const std::string& value,
                  const std::string& option) {
  std::array<char, 512> reason{};
  if (rd_kafka_conf_set(conf, name.c_str(), value.c_str(), reason.data(), reason.size()) !=
      RD_KAFKA_CONF_OK) {
    throw ConfigError(option, reason.data());
  }
}

namespace {

/// "host:port,host,...", each also behind "SSL://" or the like. librdkafka takes any text, and only
/// logs that nobody is there.
void check_brokers(std::string_view list) {
  constexpr const char* kForm = "expected host:port of some of the brokers, with commas";
  while (true) {
    const std::size_t comma = list.find(',');
    std::string_view one = list.substr(0, comma);
    while (one.starts_with(' ')) one.remove_prefix(1);
    while (one.ends_with(' ')) one.remove_suffix(1);
    if (const std::size_t scheme = one.find("://"); scheme != std::string_view::npos) {
      one.remove_prefix(scheme + 3);
    }
    const std::size_t bracket = one.starts_with('[') ? one.find(']') : 0;
    const std::size_t colon = bracket == std::string_view::npos ? bracket : one.find(':', bracket);
    std::string_view host = one.substr(0, colon);
    if (bracket != 0 && host.ends_with(']')) host = host.substr(1, host.size() - 2);
    if (const std::string fault = host_fault(host); !fault.empty()) {
      throw ConfigError("brokers", fmt::format("'{}': {}; {}", one, fault, kForm));
    }
    if (colon != std::string_view::npos) {
      const std::string_view port = one.substr(colon + 1);
      unsigned number = 0;
      const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
      if (error != std::errc() || end != port.data() + port.size() || number < 1 ||
          number > 65535) {
        throw ConfigError(
            "brokers", fmt::format("'{}': the port is no number from 1 to 65535; {}", one, kForm));
      }
    }
    if (comma == std::string_view::npos) return;
    list.remove_prefix(comma + 1);
  }
}

}  // namespace

Kafka<rd_kafka_conf_t> kafka_configuration(const std::string& brokers,
                                           const std::map<std::string, std::string>& properties,
                                           std::span<const OwnProperty> own) {
  static constexpr std::array<OwnProperty, 3> kOfAll = {{{"bootstrap.servers", "brokers"},
                                                         {"metadata.broker.list", "brokers"},
                                                         {"statistics.interval.ms", ""}}};
  Kafka<rd_kafka_conf_t> conf(rd_kafka_conf_new());
  set_property(conf.get(), "client.id", "millrace", "kafka");
  set_property(conf.get(), "log.connection.close", "false", "kafka");
  for (const auto& property : properties) {
    const std::string& name = property.first;
    for (const auto& list : {std::span<const OwnProperty>(kOfAll), own}) {
      const auto found = std::ranges::find(list, name, &OwnProperty::name);
      if (found == list.end()) continue;
      throw ConfigError("kafka",
                        found->option.empty()
                            ? fmt::format("'{}' is this stage's own affair", name)
                            : fmt::format("'{}' is set by the option '{}'", name, found->option));
    }
    set_property(conf.get(), name, property.second, "kafka");
  }
  check_brokers(brokers);
  set_property(conf.get(), "bootstrap.servers", brokers, "brokers");
  // They tell when a broker is back, without a request that would wait behind others.
  set_property(conf.get(), "statistics.interval.ms", "1000", "");
  return conf;
}

bool is_refusal(rd_kafka_resp_err_t code) noexcept {
  return code == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED ||
         code == RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED ||
         code == RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED ||
         code == RD_KAFKA_RESP_ERR_INVALID_GROUP_ID || code == RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION ||
         code == RD_KAFKA_RESP_ERR__AUTHENTICATION ||
         code == RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED;
}

int in_ms(std::chrono::nanoseconds time) {
  return static_cast<int>(std::max<std::int64_t>(0, duration_cast<milliseconds>(time).count()));
}

KafkaClient::KafkaClient(std::string brokers, std::string topic_option, std::string group_option,
                         Context& context)
    : brokers_(std::move(brokers)),
      topic_option_(std::move(topic_option)),
      group_option_(std::move(group_option)),
      context_(context),
      reconnects_(context.counter("reconnects")) {}

void KafkaClient::start(rd_kafka_type_t kind, Kafka<rd_kafka_conf_t> conf) {
  rd_kafka_conf_set_opaque(conf.get(), this);
  rd_kafka_conf_set_error_cb(
      conf.get(), [](rd_kafka_t* /*client*/, int code, const char* reason, void* self) {
        static_cast<KafkaClient*>(self)->on_error(static_cast<rd_kafka_resp_err_t>(code), reason);
      });
  rd_kafka_conf_set_log_cb(
      conf.get(), [](const rd_kafka_t* client, int level, const char* facility, const char* text) {
        static_cast<KafkaClient*>(rd_kafka_opaque(client))->on_log(level, facility, text);
      });
  rd_kafka_conf_set_stats_cb(
      conf.get(), [](rd_kafka_t* /*client*/, char* json, std::size_t size, void* opaque) {
        auto& self = *static_cast<KafkaClient*>(opaque);
        self.guarded([&] { self.on_statistics({json, size}); });
        return 0;  // librdkafka frees it
      });
  std::array<char, 512> reason{};
  client_.reset(rd_kafka_new(kind, conf.get(), reason.data(), reason.size()));
  if (!client_) throw ConfigError("kafka", reason.data());
  // The client has taken it over.
  static_cast<void>(conf.release());
}

void KafkaClient::refuse(rd_kafka_resp_err_t code, const std::string& reason) const {
  const bool about_topics = code == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED ||
                            code == RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION;
  const bool about_login = code == RD_KAFKA_RESP_ERR__AUTHENTICATION ||
                           code == RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED;
  throw ConfigError(about_topics ? topic_option_ : about_login ? "kafka" : group_option_, reason);
}

std::string KafkaClient::problem_of(const std::string& name) {
  constexpr milliseconds kPatience{500};
  const Kafka<rd_kafka_topic_t> topic(rd_kafka_topic_new(client(), name.c_str(), nullptr));
  if (!topic) refuse(rd_kafka_last_error(), rd_kafka_err2str(rd_kafka_last_error()));
  const rd_kafka_metadata_t* raw = nullptr;
  const rd_kafka_resp_err_t code =
      rd_kafka_metadata(client(), 0, topic.get(), &raw, in_ms(kPatience));
  const Kafka<const rd_kafka_metadata_t> answer(raw);
  rd_kafka_poll(client(), 0);
  {
    const std::lock_guard lock(mutex_);
    if (is_refusal(last_error_)) refuse(last_error_, last_reason_);
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
      if (is_refusal(code)) refuse(code, rd_kafka_err2str(code));
      return fmt::format("no answer from {}: {}", brokers_,
                         last_reason_.empty() ? rd_kafka_err2str(code) : last_reason_);
    }
  }
  for (int i = 0; i < answer->topic_cnt; ++i) {
    const rd_kafka_metadata_topic_t& one = answer->topics[i];
    if (one.topic != name || one.err == RD_KAFKA_RESP_ERR_NO_ERROR) continue;
    std::string text = fmt::format("topic '{}': {}", name, rd_kafka_err2str(one.err));
    if (is_refusal(one.err)) refuse(one.err, text);
    return text;
  }
  return {};
}

void KafkaClient::wait_for_topic(const std::string& topic, Time give_up) {
  constexpr milliseconds kPause{200};
  std::string told;
  while (true) {
    {
      const std::lock_guard lock(mutex_);
      last_reason_.clear();
    }
    const std::string problem = problem_of(topic);
    if (problem.empty()) break;
    const bool no_answer = problem.starts_with("no answer");
    // A pattern may well match nothing yet, but somebody must answer.
    if (!no_answer && topic.starts_with('^')) break;
    if (steady_clock::now() >= give_up) {
      throw ConfigError(no_answer ? "brokers" : topic_option_, problem);
    }
    if (std::exchange(told, problem) != problem) {
      context_.warning(fmt::format("{}; waiting", problem));
    }
    std::this_thread::sleep_for(kPause);
  }
  if (!told.empty()) context_.info("the brokers have what was waited for");
}

void KafkaClient::on_error(rd_kafka_resp_err_t code, const char* reason) {
  if (code == RD_KAFKA_RESP_ERR__FATAL) {
    guarded([this] {
      std::array<char, 512> text{};
      rd_kafka_fatal_error(client(), text.data(), text.size());
      throw std::runtime_error(text.data());
    });
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    // That all are down is told after why they are.
    if (code != RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN || last_reason_.empty()) {
      last_error_ = code;
      last_reason_ = reason;
    }
    if (code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN) {
      if (!lost_) lost_ = next_complaint_ = steady_clock::now();
      return;
    }
  }
  // One broker of several; the client goes to another by itself.
  const bool network = code == RD_KAFKA_RESP_ERR__TRANSPORT || code == RD_KAFKA_RESP_ERR__RESOLVE ||
                       code == RD_KAFKA_RESP_ERR__TIMED_OUT;
  context_.log(network ? LogLevel::debug : LogLevel::warning, reason);
}

std::string KafkaClient::describe_loss(Time now) const {
  return fmt::format("no broker of {} can be reached for {} s: {}", brokers_,
                     duration_cast<seconds>(now - *lost_).count(), last_reason_);
}

void KafkaClient::watch() {
  constexpr seconds kComplain{10};
  std::string complaint;
  {
    const std::lock_guard lock(mutex_);
    const auto now = steady_clock::now();
    if (!lost_ || now < next_complaint_) return;
    complaint = describe_loss(now);
    next_complaint_ = now + kComplain;
  }
  context_.warning(complaint);
}

std::optional<std::string> KafkaClient::unreachable() const {
  const std::lock_guard lock(mutex_);
  if (!lost_) return std::nullopt;
  return describe_loss(steady_clock::now());
}

void KafkaClient::on_statistics(std::string_view statistics) {
  {
    const std::lock_guard lock(mutex_);
    if (!lost_) return;
    const nlohmann::json all = nlohmann::json::parse(statistics);
    const nlohmann::json& brokers = all.at("brokers");
    const bool back = std::ranges::any_of(
        brokers, [](const nlohmann::json& broker) { return broker.at("state") == "UP"; });
    if (!back) return;
    lost_.reset();
  }
  reconnects_.add();
  context_.info(fmt::format("{} answers again", brokers_));
}

void KafkaClient::on_log(int level, const char* facility, const char* text) {
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

void KafkaClient::guarded(const std::function<void()>& function) noexcept {
  try {
    function();
  } catch (...) {
    const std::lock_guard lock(mutex_);
    thrown_ = std::current_exception();
  }
}

void KafkaClient::rethrow() {
  std::exception_ptr thrown;
  {
    const std::lock_guard lock(mutex_);
    thrown = std::exchange(thrown_, nullptr);
  }
  if (thrown) std::rethrow_exception(thrown);
}

}  // namespace millrace
