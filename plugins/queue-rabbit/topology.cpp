#include "topology.h"

#include <algorithm>
#include <chrono>

#include <fmt/format.h>

namespace millrace {

std::int64_t milliseconds_of(Duration duration) {
  return std::max<std::int64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(duration).count(), 1);
}

Topology::Topology(const RabbitOptions& options)
    : ready(options.name),
      held(options.name + ".held"),
      dead(options.name + ".dead"),
      delay_by_(options.delay_by),
      delay_ms_(milliseconds_of(options.delay)) {
  std::int64_t pause = milliseconds_of(options.retry_pause);
  for (std::uint32_t i = 0; i < kPauses; ++i, pause *= 2) {
    pauses_.push_back({fmt::format("{}.retry.{}", options.name, i + 1), pause});
  }
  switch (delay_by_) {
    case DelayBy::hold:
      delay_key = held;
      tell_due = true;
      break;
    case DelayBy::ttl:
      // One queue for each delay: a time-out of single messages would wait for the queue's head.
      delay_key = fmt::format("{}.delay.{}", options.name, delay_ms_);
      break;
    case DelayBy::x_delayed_message:
      delay_exchange = options.name + ".delayed";
      delay_key = ready;
      delay_headers = {{"x-delay", delay_ms_, {}}};
      delay_unroutable = AmqpSession::Unroutable::is_dropped;
      break;
  }
}

const Topology::Pause& Topology::retry(std::uint32_t attempts) const {
  const std::size_t last = pauses_.size() - 1;
  return pauses_[std::min<std::size_t>(attempts > 0 ? attempts - 1 : 0, last)];
}

std::vector<std::string> Topology::taken() const {
  std::vector<std::string> queues = {ready, held};
  for (const Pause& pause : pauses_) queues.push_back(pause.queue);
  return queues;
}

std::vector<std::string> Topology::declare(AmqpSession& session) const {
  std::vector<std::string> unread;
  // Those that this stage does not publish to may have messages from before its options changed.
  for (const std::string& queue : taken()) {
    if (session.declare_queue(queue, {}) == 0) unread.push_back(queue);
  }
  session.declare_queue(dead, {});
  if (delay_by_ == DelayBy::ttl) {
    session.bind(ready, "amq.direct", ready);
    session.declare_queue(delay_key, {{"x-message-ttl", delay_ms_, {}},
                                      {"x-dead-letter-exchange", 0, "amq.direct"},
                                      {"x-dead-letter-routing-key", 0, ready}});
  } else if (delay_by_ == DelayBy::x_delayed_message) {
    session.declare_exchange(delay_exchange, "x-delayed-message",
                             {{"x-delayed-type", 0, "direct"}});
    session.bind(ready, delay_exchange, ready);
  }
  return unread;
}

}  // namespace millrace
