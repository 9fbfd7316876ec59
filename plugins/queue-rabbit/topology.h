#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "rabbit_options.h"
#include "session.h"

namespace millrace {

/// Whole milliseconds, one at least.
[[nodiscard]] std::int64_t milliseconds_of(Duration duration);

/// The names of the queues, and their declaration:
///   NAME              tickets that are due
///   NAME.held         tickets that are not: whoever takes them holds them until they are
///   NAME.retry.N      likewise, for what failed; one for each length of the pause, so that no
///                     message waits behind one that is due later
///   NAME.dead         what cannot be read or failed too often; nothing takes it from there
/// With delay_by = "ttl" the queue NAME.delay.MS takes the place of NAME.held: it holds tickets for
/// MS milliseconds (message TTL), then they go to NAME. With delay_by = "x-delayed-message" it is
/// the exchange NAME.delayed.
class Topology {
 public:
  explicit Topology(const RabbitOptions& options);

  /// Makes what is not there. Throws Refused (406) if something is there with other arguments.
  /// Returns which queues that messages are taken from have no consumer.
  std::vector<std::string> declare(AmqpSession& session) const;

  struct Pause {
    std::string queue;
    std::int64_t ms;
  };
  /// Where a message waits that has failed so many times: the pause doubles from time to time,
  /// kPauses - 1 times.
  [[nodiscard]] const Pause& retry(std::uint32_t attempts) const;
  /// All queues that messages are taken from.
  [[nodiscard]] std::vector<std::string> taken() const;

  static constexpr std::uint32_t kPauses = 6;

  std::string ready;
  std::string held;
  std::string dead;
  /// Where delayed tickets are published.
  std::string delay_exchange;
  std::string delay_key;
  std::vector<AmqpSession::Argument> delay_headers;
  /// Whether a delayed message tells when it is due, for whoever takes it to wait.
  bool tell_due = false;
  /// The exchange of the plugin returns every message that is to come back if it is unroutable.
  AmqpSession::Unroutable delay_unroutable = AmqpSession::Unroutable::comes_back;

 private:
  DelayBy delay_by_;
  std::int64_t delay_ms_;
  std::vector<Pause> pauses_;
};

}  // namespace millrace
