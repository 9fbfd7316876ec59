#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "millrace/context.h"

#include "broker_clock.h"
#include "rabbit_options.h"
#include "session.h"
#include "topology.h"

namespace millrace {

/// A connection that is kept up by a thread of its own: it serves heartbeats whatever the pipeline
/// does, and connects again when the connection breaks.
class Link {
 public:
  /// What a half of the queue does with the connection. All calls come on the link's thread; a
  /// LinkLost that they throw ends the connection.
  class Work {
   public:
    Work() = default;
    Work(const Work&) = delete;
    Work& operator=(const Work&) = delete;
    virtual ~Work() = default;
    /// A new connection, its queues declared.
    virtual void connected(AmqpSession& session) = 0;
    virtual void event(AmqpSession& session, AmqpSession::Event& event) = 0;
    /// The queues have been declared again, as every `check_queues`; `unread` have no consumer.
    virtual void checked(AmqpSession& session, const std::vector<std::string>& unread) = 0;
    /// Called after events and after `wake`, and when the time has passed that the last call gave
    /// (at the latest after kPatience).
    virtual std::chrono::milliseconds turn(AmqpSession& session) = 0;
    /// The connection is gone; what was under way on it is not settled.
    virtual void lost() = 0;
  };

  static constexpr std::chrono::milliseconds kPatience{200};

  Link(const RabbitOptions& options, Context& context, Work& work);
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;
  /// Ends the thread.
  ~Link();

  /// Connects for the first time, waiting for the broker as long as `wait` says, and starts the
  /// thread. Throws ConfigError if the broker refuses.
  void start();
  /// Makes the thread call `turn` soon. Any thread.
  void wake() noexcept;
  /// Why there is no connection at present. Any thread.
  [[nodiscard]] std::optional<std::string> down() const;
  /// Asks a broker that was in alarm whether it takes messages again. The link's thread.
  [[nodiscard]] bool alarm_is_over();
  /// The broker's clock as it was measured last. The link's thread.
  [[nodiscard]] const BrokerClock& clock() const noexcept { return clock_; }
  /// Whether the broker takes no messages at present (memory or disk alarm). Any thread.
  [[nodiscard]] bool blocked() const noexcept { return blocked_; }
  /// Ends the thread, also one that waits for a broker which takes nothing.
  void stop() noexcept;

 private:
  [[nodiscard]] std::unique_ptr<AmqpSession> connect();
  /// Measures the broker's clock and reports how ours differs, once for each difference. False if
  /// the broker does not answer.
  bool set_clock();
  void run(std::unique_ptr<AmqpSession> session) noexcept;
  void serve(AmqpSession& session);
  void handle(AmqpSession& session, AmqpSession::Event& event);
  void set_up(const AmqpSession& session);
  void set_down(const std::string& why);
  /// False if the link is to stop.
  bool pause(std::chrono::milliseconds time);

  const RabbitOptions options_;
  const Topology topology_;
  Context& context_;
  Work& work_;
  Counter& reconnects_;
  Counter& blocks_;
  Condition& connection_;
  Condition& publishing_;
  int wake_fd_ = -1;
  mutable std::mutex mutex_;
  std::condition_variable stopping_;
  std::condition_variable ended_;
  std::atomic<bool> stop_{false};
  std::atomic<bool> blocked_{false};
  BrokerClock clock_;
  std::chrono::milliseconds ahead_{0};  ///< of the broker's clock, as it was reported
  bool unmeasured_ = false;             ///< it was reported that it cannot be measured
  bool unstable_ = false;               ///< of the link's thread: the last connection broke soon
  bool running_ = false;
  int descriptor_ = -1;  ///< of the connection, while it is up
  std::optional<std::string> down_;
  std::thread thread_;
};

}  // namespace millrace
