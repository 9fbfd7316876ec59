#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>

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
    std::size_t tickets = 0;
    Receipt receipt;
  };

  void connected(AmqpSession& session) override;
  void event(AmqpSession& session, AmqpSession::Event& event) override;
  void turn(AmqpSession& session) override;
  void lost() override;

  void bundle(std::span<const Ticket> tickets, bool delayed, const Receipt& receipt,
              std::deque<Message>& into) const;
  /// Waits until `count` more messages have room; throws Transient while the broker is away.
  void wait_for_room(std::size_t count);
  void confirm(const AmqpSession::Event& event);

  const RabbitOptions options_;
  const Topology topology_;
  Context* context_ = nullptr;
  Counter* messages_ = nullptr;
  Counter* delayed_ = nullptr;
  Counter* republished_ = nullptr;
  Counter* nacked_ = nullptr;

  std::mutex mutex_;
  std::condition_variable settled_;
  std::deque<Message> waiting_;                   ///< not published on this connection
  std::map<std::uint64_t, Message> unconfirmed_;  ///< by the number of the confirm
  bool blocked_ = false;

  std::unique_ptr<Link> link_;  ///< last: its thread uses the above
};

}  // namespace millrace
