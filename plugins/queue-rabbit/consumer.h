#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "millrace/stage.h"
#include "millrace/ticket.h"

#include "failure_pause.h"
#include "link.h"
#include "rabbit_options.h"

namespace millrace {

/// The half that gives tickets out: every message becomes a batch, and is acknowledged when the
/// batch's receipt is done. One whose receipt fails comes again after a pause, with its number of
/// attempts; what cannot be read or failed too often goes to the dead-letter queue. What is not due
/// is held here, unacknowledged, so that it is the broker's again if this process ends: a broker's
/// dead-lettering loses what is on its way between two of its queues when it dies.
class RabbitOut final : public Source<Ticket>, private Link::Work {
 public:
  explicit RabbitOut(const RabbitOptions& options) : options_(options), topology_(options) {}

  void open(Context& context) override;
  void run(Output<Ticket>& out, std::stop_token stop) override;
  void close() noexcept override;

 private:
  /// A delivery that is not settled. The tag holds on one connection only.
  struct Delivery {
    std::string body;
    std::uint32_t attempts = 0;
  };
  struct Resolved {
    std::uint64_t connection = 0;
    std::uint64_t tag = 0;
    Outcome outcome = Outcome::failed;
  };
  /// What receipts tell; outlives the stage if a receipt does.
  struct Inbox {
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<Resolved> resolved;
    std::deque<Batch<Ticket>> arrived;
    FailurePause pause;
    std::size_t outstanding = 0;  ///< receipts given out and not resolved
    std::size_t moving = 0;       ///< messages that are being put elsewhere
    Link* link = nullptr;         ///< null when nobody listens any more
  };

  void connected(AmqpSession& session) override;
  void event(AmqpSession& session, AmqpSession::Event& event) override;
  void checked(AmqpSession& session, const std::vector<std::string>& unread) override;
  std::chrono::milliseconds turn(AmqpSession& session) override;
  void lost() override;

  /// Declares and consumes again what lost its consumer.
  void consume_again(AmqpSession& session);
  /// Reports a receiver whose delay is not ours.
  void compare_delay(std::int64_t hold_ms);
  void deliver(AmqpSession& session, AmqpSession::Event& event);
  /// Hands a delivery that is due to the pipeline.
  void hand_over(AmqpSession& session, std::uint64_t tag, Delivery delivery);
  /// Hands over what has become due; how long until the next.
  std::chrono::milliseconds hand_over_due(AmqpSession& session);
  void settle(AmqpSession& session, const Resolved& resolved);
  /// Hands a delivery over again after a pause, from here.
  void hold(std::uint64_t tag, Delivery delivery, std::chrono::milliseconds pause);
  /// Publishes a delivery elsewhere; it is acknowledged when that is confirmed.
  void move(AmqpSession& session, std::uint64_t tag, const std::string& queue,
            std::string_view body, const std::vector<AmqpSession::Argument>& headers);
  [[nodiscard]] Receipt receipt_for(std::uint64_t tag);
  /// Receipts of batches that nobody will take any more fail.
  void drop_arrived();
  void tell_moving();

  const RabbitOptions options_;
  const Topology topology_;
  Context* context_ = nullptr;
  Counter* messages_ = nullptr;
  Counter* tickets_ = nullptr;
  Counter* acknowledged_ = nullptr;
  Counter* retried_ = nullptr;
  Counter* dead_ = nullptr;
  Condition* consumer_ = nullptr;

  std::shared_ptr<Inbox> inbox_ = std::make_shared<Inbox>();

  // Of the link's thread.
  std::uint64_t connection_ = 0;
  /// What is not due yet, by the time when it is; at most `prefetch` of each queue.
  std::multimap<std::chrono::steady_clock::time_point, std::pair<std::uint64_t, Delivery>> held_;
  std::map<std::uint64_t, Delivery> deliveries_;   ///< by delivery tag
  std::map<std::uint64_t, std::uint64_t> moving_;  ///< delivery tags by the number of the confirm
  /// A broker in alarm reads nothing more from a connection that has published, acknowledgements
  /// neither: until then nothing is published, so that the backlog can be worked off.
  std::chrono::steady_clock::time_point publish_at_{};
  bool cancelled_ = false;
  std::int64_t other_delay_ms_ = 0;  ///< of a receiver, as it was reported
  std::vector<std::string> unread_;  ///< queues that lost their consumer
  std::atomic<bool> stopping_{false};

  std::unique_ptr<Link> link_;  ///< last: its thread uses the above
};

}  // namespace millrace
