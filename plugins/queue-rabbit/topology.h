#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "rabbit_options.h"
#include "session.h"

namespace millrace {

/// The names of the queues, and their declaration:
///   NAME              tickets that are due
///   NAME.delay.MS     holds tickets for MS milliseconds (message TTL), then they go to NAME
///   NAME.retry.MS     likewise, for what failed; one for each length of the pause
///   NAME.dead         what cannot be read or failed too often; nothing takes it from there
/// With delay_by = "x-delayed-message" the exchange NAME.delayed takes the place of NAME.delay.MS.
class Topology {
 public:
  explicit Topology(const RabbitOptions& options);

  /// Makes what is not there. Throws Refused (406) if something is there with other arguments.
  void declare(AmqpSession& session) const;

  /// The queue for a message that has failed so many times: the pause doubles from time to time,
  /// kPauses - 1 times.
  [[nodiscard]] const std::string& retry(std::uint32_t attempts) const;

  static constexpr std::uint32_t kPauses = 6;

  std::string ready;
  std::string dead;
  /// Where delayed tickets are published.
  std::string delay_exchange;
  std::string delay_key;
  std::vector<AmqpSession::Argument> delay_headers;
  /// The exchange of the plugin returns every message that is to come back if it is unroutable.
  AmqpSession::Unroutable delay_unroutable = AmqpSession::Unroutable::comes_back;

 private:
  DelayBy delay_by_;
  std::int64_t delay_ms_;
  struct Pause {
    std::string queue;
    std::int64_t ms;
  };
  std::vector<Pause> pauses_;
};

}  // namespace millrace
