#include "topology.h"

#include <algorithm>

#include <fmt/format.h>

namespace millrace {

namespace {

std::int64_t milliseconds(Duration duration) {
  return std::max<std::int64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(duration).count(), 1);
}

}  // namespace

Topology::Topology(const RabbitOptions& options)
    : ready(options.name),
      dead(options.name + ".dead"),
      delay_by_(options.delay_by),
      delay_ms_(milliseconds(options.delay)) {
  std::int64_t pause = milliseconds(options.retry_pause);
  for (std::uint32_t i = 0; i < std::min(kPauses, options.max_attempts); ++i, pause *= 2) {
    pauses_.push_back({fmt::format("{}.retry.{}", options.name, pause), pause});
  }
  if (delay_by_ == DelayBy::ttl) {
    // One queue for each delay: a time-out of single messages would wait for the queue's head.
    delay_key = fmt::format("{}.delay.{}", options.name, delay_ms_);
  } else {
    delay_exchange = options.name + ".delayed";
    delay_key = ready;
    delay_headers = {{"x-delay", delay_ms_, {}}};
    delay_unroutable = AmqpSession::Unroutable::is_dropped;
  }
}

const std::string& Topology::retry(std::uint32_t attempts) const {
  const std::size_t last = pauses_.size() - 1;
  return pauses_[std::min<std::size_t>(attempts > 0 ? attempts - 1 : 0, last)].queue;
}

void Topology::declare(AmqpSession& session) const {
  session.declare_queue(ready, {});
  session.declare_queue(dead, {});
  const auto waiting = [this](std::int64_t time) {
    return std::vector<AmqpSession::Argument>{{"x-message-ttl", time, {}},
                                              {"x-dead-letter-exchange", 0, "amq.direct"},
                                              {"x-dead-letter-routing-key", 0, ready}};
  };
  session.bind(ready, "amq.direct", ready);
  for (const Pause& pause : pauses_) session.declare_queue(pause.queue, waiting(pause.ms));
  if (delay_by_ == DelayBy::ttl) {
    session.declare_queue(delay_key, waiting(delay_ms_));
  } else {
    session.declare_exchange(delay_exchange, "x-delayed-message",
                             {{"x-delayed-type", 0, "direct"}});
    session.bind(ready, delay_exchange, ready);
  }
}

}  // namespace millrace
