#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "millrace/stage.h"
#include "millrace/ticket.h"

#include "link.h"
#include "rabbit_options.h"

namespace millrace {

/// The half that takes tickets in: bundles of them become persistent messages, and a batch is
/// acknowledged when the broker has confirmed all of its messages. What is not confirmed when the
/// connection breaks is published again.
class RabbitIn final : public Sink<Ticket>, private Link::Work {
 public:
  explicit RabbitIn(const RabbitOptions& options) : options_(options), topology_(options) {}

  void open(Context& context) override;
  void write(Batch<Ticket>& in) override;
  void flush() override;
  void close() noexcept override;

 private:
  struct Message {
    std::string body;
    bool delayed = false;
    std::chrono::steady_clock::time_point due{};  ///< of a delayed one
    std::size_t tickets = 0;
    Receipt receipt;
  };

  void connected(AmqpSession& /*session*/) override {}
  void event(AmqpSession& session, AmqpSession::Event& event) override;
  void checked(AmqpSession& /*session*/, const std::vector<std::string>& /*unread*/) override {}
  std::chrono::milliseconds turn(AmqpSession& session) override;
  void lost() override;

  std::uint64_t publish(AmqpSession& session, const Message& message) const;
  void bundle(std::span<const Ticket> tickets, bool delayed, const Receipt& receipt,
              std::deque<Message>& into) const;
  /// Waits until `count` more messages have room; throws Transient while the broker is away or
  /// takes nothing.
  void wait_for_room(std::size_t count);
  template <class Condition>
  void wait_until(std::unique_lock<std::mutex>& lock, Condition condition);
  void confirm(const AmqpSession::Event& event);
  /// What the broker did not take is published again after a pause.
  void refused(const AmqpSession::Event& event);
  /// Takes the messages out that a confirm speaks of. Needs the lock.
  [[nodiscard]] std::vector<Message> take(const AmqpSession::Event& event);

  const RabbitOptions options_;
  const Topology topology_;
  Context* context_ = nullptr;
  Counter* messages_ = nullptr;
  Counter* tickets_ = nullptr;
  Counter* delayed_ = nullptr;
  Counter* confirmed_ = nullptr;
  Counter* republished_ = nullptr;
  Counter* nacked_ = nullptr;

  std::mutex mutex_;
  std::condition_variable settled_;
  std::deque<Message> waiting_;                   ///< not published on this connection
  std::map<std::uint64_t, Message> unconfirmed_;  ///< by the number of the confirm
  std::uint64_t progress_ = 0;                    ///< messages confirmed so far
  bool refusing_ = false;                         ///< the broker's last word on a message was no
  std::chrono::steady_clock::time_point hold_until_{};

  std::unique_ptr<Link> link_;  ///< last: its thread uses the above
};

}  // namespace millrace
