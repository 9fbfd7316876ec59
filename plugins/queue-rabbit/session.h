#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <amqp.h>

#include "millrace/time.h"

#include "rabbit_options.h"

namespace millrace {

/// The connection is of no use any more; a new one may work.
class LinkLost : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// An option cannot work here: a file that is no certificate, a broker that it does not fit.
class Misconfigured : public LinkLost {
 public:
  Misconfigured(std::string option, const std::string& text)
      : LinkLost(text), option_(std::move(option)) {}
  [[nodiscard]] const std::string& option() const noexcept { return option_; }

 private:
  std::string option_;
};

/// What the broker said no to: code 403 access, 404 not found, 406 other arguments, 530 vhost.
class Refused : public LinkLost {
 public:
  Refused(int code, const std::string& text) : LinkLost(text), code_(code) {}
  [[nodiscard]] int code() const noexcept { return code_; }

 private:
  int code_;
};

/// One connection with one channel in confirm mode. One thread. Every failure is a LinkLost, after
/// which only the destructor may be called.
class AmqpSession {
 public:
  /// Connects and logs in.
  explicit AmqpSession(const RabbitOptions& options);
  AmqpSession(const AmqpSession&) = delete;
  AmqpSession& operator=(const AmqpSession&) = delete;
  ~AmqpSession();

  struct Argument {
    std::string name;
    std::int64_t number = 0;
    std::string text;  ///< used if not empty
  };
  /// Returns how many consumers the queue has.
  std::uint32_t declare_queue(const std::string& name, const std::vector<Argument>& arguments);
  /// A queue of this connection, which goes away with it.
  void declare_temporary_queue(const std::string& name, const std::vector<Argument>& arguments);
  void declare_exchange(const std::string& name, const std::string& type,
                        const std::vector<Argument>& arguments);
  void bind(const std::string& queue, const std::string& exchange, const std::string& key);
  /// Takes messages from one more queue; `prefetch` is for each of them.
  void consume(const std::string& queue, std::uint16_t prefetch);
  /// Takes no more from that queue; what was sent before may still come.
  void cancel(const std::string& queue);

  /// Whether a message that no queue would take comes back, which breaks the connection.
  enum class Unroutable : std::uint8_t { comes_back, is_dropped };
  /// A durable message; `headers` travel with it. Returns its number for the confirm.
  std::uint64_t publish(const std::string& exchange, const std::string& key, std::string_view body,
                        const std::vector<Argument>& headers = {},
                        Unroutable unroutable = Unroutable::comes_back);
  void acknowledge(std::uint64_t tag);
  /// Gives a delivery back to its queue.
  void give_back(std::uint64_t tag);

  struct Event {
    enum class Kind : std::uint8_t {
      none,
      confirmed,
      refused,  ///< a message was not taken (basic.nack)
      delivered,
      blocked,  ///< the broker takes no messages (memory or disk alarm)
      unblocked,
      cancelled,  ///< the broker ended the consumer of the queue `text`, which is gone
    } kind = Kind::none;
    std::uint64_t tag = 0;
    bool multiple = false;  ///< of confirms: all tags up to this one
    std::string body;
    std::uint32_t attempts = 0;  ///< the header x-attempts
    std::int64_t due_ms = 0;     ///< the header x-due: milliseconds since the epoch
    std::int64_t hold_ms = 0;    ///< the header x-hold: how long it waits at most
    std::int64_t died_at = 0;    ///< of a message that the broker moved: its clock, in seconds
    std::string text;
  };
  /// What has come; `none` if nothing is there. Serves heartbeats, so call it often.
  [[nodiscard]] Event next();
  /// Says good-bye, so that the broker reads everything that was sent before. Waits for a second
  /// at most.
  void close() noexcept;
  /// Where poll(2) tells that something may have come.
  [[nodiscard]] int descriptor() const;

 private:
  struct Destroy {
    void operator()(amqp_connection_state_t state) const { amqp_destroy_connection(state); }
  };
  void check(int status, const char* doing) const;
  void check_reply(const char* doing) const;
  [[nodiscard]] Event event_of(const amqp_method_t& method);
  [[nodiscard]] Event delivery(const amqp_basic_deliver_t& method);
  [[noreturn]] void closed(const amqp_method_t& method) const;

  std::unique_ptr<amqp_connection_state_t_, Destroy> state_;
  std::uint64_t published_ = 0;
};

inline constexpr const char* kAttempts = "x-attempts";
inline constexpr const char* kDue = "x-due";
inline constexpr const char* kHold = "x-hold";
inline constexpr const char* kReason = "x-reason";

}  // namespace millrace
