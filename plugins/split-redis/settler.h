#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "millrace/context.h"
#include "millrace/receipt.h"

#include "connection.h"
#include "layout.h"
#include "server_watch.h"

namespace millrace {

/// Sessions that were given out under one lease, and what became of them.
struct Settlement {
  std::uint32_t bucket = 0;
  std::string token;
  std::vector<std::string> sessions;  ///< flow of each and its member of the index
  Outcome outcome = Outcome::failed;
  Receipt ticket;  ///< resolved when Redis knows the outcome
};

/// Tells Redis what became of leased sessions, on a thread and a connection of its own: receipts
/// are resolved on threads that must not wait. What cannot be told is tried again until `stop`.
class Settler {
 public:
  /// What receipts hold on to; lives as long as the last of them. Any thread.
  class Desk {
   public:
    /// After `stop` the settlement is dropped, and its ticket fails: the lease will run out.
    void hand_in(Settlement settlement) noexcept;
    /// `ticket` fails at `when`, or at `stop`: it should not come back at once.
    void hold_back(Receipt ticket, std::chrono::steady_clock::time_point when);

   private:
    friend class Settler;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<Settlement> waiting_;
    std::vector<std::pair<std::chrono::steady_clock::time_point, Receipt>> held_;
    bool stopping_ = false;
    bool closed_ = false;
  };

  Settler(const RedisAddress& address, RedisTimeouts timeouts, std::vector<KeyNames> names,
          Context& context, ServerWatch& watch);
  Settler(const Settler&) = delete;
  Settler& operator=(const Settler&) = delete;
  ~Settler() { stop(Duration(0)); }

  [[nodiscard]] const std::shared_ptr<Desk>& desk() const { return desk_; }
  /// Settles what was handed in, for at most `patience`, and ends.
  void stop(Duration patience) noexcept;

 private:
  void run() noexcept;
  void settle(std::deque<Settlement>& work);
  void fail_held(std::unique_lock<std::mutex>& lock);

  RedisConnection connection_;
  std::vector<KeyNames> names_;
  ServerWatch& watch_;
  Condition& condition_;  ///< leases can be ended
  Counter& settled_;
  Counter& lost_;
  Counter& returned_;
  std::shared_ptr<Desk> desk_ = std::make_shared<Desk>();
  std::chrono::steady_clock::time_point deadline_;  ///< guarded by the desk's mutex
  std::thread thread_;
};

}  // namespace millrace
