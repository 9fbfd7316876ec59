#pragma once

#include <string>

#include "rabbit_options.h"
#include "session.h"

namespace millrace {

/// The names of the queues, and their declaration:
///   NAME              tickets that are due
///   NAME.delay.MS     holds tickets for MS milliseconds (message TTL), then they go to NAME
///   NAME.retry.MS     likewise, for what failed
///   NAME.dead         what cannot be read or failed too often; nothing takes it from there
/// With delay_by = "x-delayed-message" the exchange NAME.delayed takes the place of NAME.delay.MS.
class Topology {
 public:
  explicit Topology(const RabbitOptions& options);

  /// Makes what is not there. Throws Refused (406) if something is there with other arguments.
  void declare(AmqpSession& session) const;

  std::string ready;
  std::string retry;
  std::string dead;
  /// Where delayed tickets are published.
  std::string delay_exchange;
  std::string delay_key;
  std::vector<AmqpSession::Argument> delay_headers;

 private:
  DelayBy delay_by_;
  std::int64_t delay_ms_;
  std::int64_t retry_ms_;
};

}  // namespace millrace
