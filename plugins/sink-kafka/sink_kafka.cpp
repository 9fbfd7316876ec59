#include "sink_kafka.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include <fmt/format.h>

#include "millrace/error.h"

namespace millrace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

constexpr milliseconds kTurn{100};

/// It is the content of a message, or of one that went in the same request.
bool is_about_content(rd_kafka_resp_err_t code) {
  return code == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE || code == RD_KAFKA_RESP_ERR_INVALID_RECORD;
}

}  // namespace

void check_kafka_options(const KafkaOptions& options, Findings& findings) {
  if (options.topic.empty()) findings.add("topic", "expected the name of a topic");
  if (options.topic.starts_with('^')) {
    findings.add("topic", "expected the name of one topic, not a regular expression");
  }
  try {
    const auto valid = producer_configuration(options);
  } catch (const ConfigError& error) {
    findings.add(error.option(), error.what());
  }
}

void SinkKafka::open(Context& context) {
  context_ = &context;
  messages_ = &context.counter("messages");
  bytes_ = &context.counter("bytes");
  again_ = &context.counter("sent-again");
  alone_ = &context.counter("sent-alone");
  producer_ = std::make_unique<KafkaProducer>(options_, context,
                                              static_cast<KafkaProducer::Listener&>(*this));
  producer_->open();
  server_ = std::jthread([this](const std::stop_token& stop) { serve(stop); });
}

void SinkKafka::serve(const std::stop_token& stop) noexcept {
  while (!stop.stop_requested()) {
    producer_->guarded([this] {
      producer_->poll(kTurn);
      producer_->watch();
      std::unique_lock lock(mutex_);
      send(lock);
    });
  }
}

void SinkKafka::write(Batch<Verdict>& in) {
  producer_->rethrow();
  if (in.items.empty()) return;
  std::unique_lock lock(mutex_);
  wait_until(lock, [&] {
    // A batch that is larger than the bounds goes when nothing else is there.
    return open_ == 0 || (open_ + in.items.size() <= options_.window &&
                          held_ + in.storage_bytes <= options_.buffer.bytes);
  });
  const auto taken = std::make_shared<Taken>(Taken{std::move(in), 0});
  taken->left = taken->batch.items.size();
  open_ += taken->left;
  held_ += taken->batch.storage_bytes;
  for (std::size_t i = 0; i < taken->left; ++i) {
    waiting_.emplace_hint(waiting_.end(), next_++, Message{taken, i});
  }
  send(lock);
}

void SinkKafka::flush() {
  producer_->rethrow();
  std::unique_lock lock(mutex_);
  wait_until(lock, [this] { return open_ == 0; });
}

void SinkKafka::close() noexcept {
  if (server_.joinable()) {
    server_.request_stop();
    server_.join();
  }
  producer_.reset();
  // What is left fails, so that whoever sent it knows.
  waiting_.merge(sent_);
  if (waiting_.empty()) return;
  context_->warning(fmt::format("{} messages were not acknowledged", waiting_.size()));
  waiting_.clear();
}

template <class Condition>
void SinkKafka::wait_until(std::unique_lock<std::mutex>& lock, Condition condition) {
  std::uint64_t seen = progress_;
  auto since = steady_clock::now();
  while (!settled_.wait_for(lock, kTurn, condition)) {
    producer_->rethrow();
    const auto now = steady_clock::now();
    if (std::exchange(seen, progress_) != progress_) since = now;
    std::string why = failing_;
    if (const auto unreachable = producer_->unreachable()) why = *unreachable;
    if (why.empty() && now - since >= options_.timeout) {
      why = fmt::format("{} have acknowledged nothing for {:.0f} s", options_.brokers,
                        std::chrono::duration<double>(now - since).count());
    }
    if (why.empty()) continue;
    throw Transient(fmt::format("{} messages wait to be acknowledged: {}", open_, why));
  }
}

void SinkKafka::send(std::unique_lock<std::mutex>& lock) {
  if (steady_clock::now() < hold_until_) return;
  while (!waiting_.empty()) {
    auto& [number, message] = *waiting_.begin();
    if (!sent_.empty() && (message.alone || exclusive_)) return;
    const Verdict& verdict = message.taken->batch.items[message.position];
    value_.clear();
    ItemTraits<Verdict>::describe(verdict, value_);
    const rd_kafka_resp_err_t code = producer_->produce(number, to_hex(verdict.session.id), value_);
    // The next report brings us here again.
    if (code == RD_KAFKA_RESP_ERR__QUEUE_FULL) return;
    held_ += value_.size() - std::exchange(message.bytes, value_.size());
    exclusive_ = message.alone;
    auto node = waiting_.extract(waiting_.begin());
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR) {
      sent_.insert(std::move(node));
      continue;
    }
    // The client has looked at this message alone.
    if (is_about_content(code)) node.mapped().alone = true;
    settle(lock, std::move(node), code);
    if (steady_clock::now() < hold_until_) return;
  }
}

void SinkKafka::delivered(std::uint64_t number, rd_kafka_resp_err_t code) noexcept {
  producer_->guarded([&] {
    std::unique_lock lock(mutex_);
    auto node = sent_.extract(number);
    if (!node) return;
    settle(lock, std::move(node), code);
  });
}

void SinkKafka::settle(std::unique_lock<std::mutex>& lock, Messages::node_type node,
                       rd_kafka_resp_err_t code) {
  constexpr milliseconds kPause{500};
  Message& message = node.mapped();
  if (code == RD_KAFKA_RESP_ERR_NO_ERROR) {
    messages_->add();
    bytes_->add(message.bytes);
    failing_.clear();
    conclude(lock, message, [this] { context_->handled(1); });
    return;
  }
  const std::string reason = rd_kafka_err2str(code);
  if (is_about_content(code) && message.alone) return reject(lock, message, reason);
  if (is_about_content(code)) {
    if (alone_->value() == 0) {
      context_->warning(
          fmt::format("topic '{}': {}; the messages of that request are sent again one by one. If "
                      "this goes on, set kafka.\"batch.size\" below the topic's max.message.bytes",
                      options_.topic, reason));
    }
    alone_->add();
    message.alone = true;
    waiting_.insert(std::move(node));
    return;
  }
  waiting_.insert(std::move(node));
  const std::string what = fmt::format("topic '{}': {}", options_.topic, reason);
  if (is_refusal(code) || code == RD_KAFKA_RESP_ERR__FATAL) {
    hold_until_ = steady_clock::time_point::max();
    if (code == RD_KAFKA_RESP_ERR__FATAL) return;  // the client tells why
    throw std::runtime_error(fmt::format("the brokers refuse this producer: {}", what));
  }
  again_->add();
  if (failing_.empty()) context_->warning(fmt::format("{}; sending it again", what));
  failing_ = what;
  hold_until_ = steady_clock::now() + kPause;
}

void SinkKafka::reject(std::unique_lock<std::mutex>& lock, const Message& message,
                       const std::string& reason) {
  const Batch<Verdict>& batch = message.taken->batch;
  Batch<Verdict> bad({batch.items[message.position]});
  bad.storage = batch.storage;
  bad.receipt = batch.receipt.fork();
  const std::string text =
      fmt::format("topic '{}': {} (a message of {} bytes)", options_.topic, reason, message.bytes);
  conclude(lock, message, [&] { context_->rejected(text, bad); });
}

template <class Tell>
void SinkKafka::conclude(std::unique_lock<std::mutex>& lock, const Message& message, Tell tell) {
  Batch<Verdict>& batch = message.taken->batch;
  const bool last = --message.taken->left == 0;
  // Outside the lock: this runs the source's code.
  lock.unlock();
  tell();
  if (last) batch.receipt.done();
  lock.lock();
  ++progress_;
  --open_;
  held_ -= message.bytes + (last ? batch.storage_bytes : 0);
  settled_.notify_all();
}

}  // namespace millrace

using namespace millrace;

MILLRACE_PLUGIN(
    "sink-kafka", MILLRACE_VERSION,
    sink<SinkKafka, KafkaOptions>(
        "sink-kafka", "Writes a message of JSON to Kafka for each session",
        option<&KafkaOptions::brokers>("brokers", "host:port of some of the brokers, with commas"),
        option<&KafkaOptions::topic>("topic", "where to write").required(),
        option<&KafkaOptions::compression>("compression",
                                           "of the messages on their way and in Kafka")
            .choices({{"none", Compression::none},
                      {"gzip", Compression::gzip},
                      {"snappy", Compression::snappy},
                      {"lz4", Compression::lz4},
                      {"zstd", Compression::zstd}}),
        option<&KafkaOptions::window>(
            "window",
            "messages that wait for the brokers' acknowledgement at most; then the input waits")
            .between(1, 1000000),
        option<&KafkaOptions::buffer>(
            "buffer",
            "memory that those and the batches they came in take at most; a batch that is larger "
            "waits until it is alone")
            .at_least(1_KiB),
        option<&KafkaOptions::timeout>(
            "timeout",
            "how long brokers may acknowledge nothing before the stage's 'retry_for' begins")
            .between(10ms, 10min),
        option<&KafkaOptions::wait>(
            "wait",
            "how long the start waits for a broker that cannot be reached, or for a topic that is "
            "not there")
            .between(0ms, 24h),
        option<&KafkaOptions::kafka>(
            "kafka", "further properties of librdkafka: { \"security.protocol\" = \"ssl\" }")
            .secret())
        .accepts<Session>(&unlabelled)
        .checked(&check_kafka_options)
        .aggregates()
        .single("keeps the order of the messages"))
