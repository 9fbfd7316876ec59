#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "millrace/ticket.h"

#include "failure_pause.h"

namespace millrace {

/// What the two halves of queue-memory share: tickets that are ready and tickets that wait for
/// their time. Threads: any.
class TicketStore {
 public:
  using Time = std::chrono::steady_clock::time_point;

  struct Held {
    Ticket ticket;
    std::shared_ptr<const void> storage;  ///< of the ticket's views
    std::uint32_t attempts = 0;
  };

  void configure(std::size_t max_tickets) { max_tickets_ = max_tickets; }

  /// Blocks while the store is full; `due` is when the tickets may be taken.
  void put(std::vector<Held> tickets, Time due);
  /// As put, for tickets that come back: there is room for them already, and `due` holds also after
  /// `close`.
  void put_back(std::vector<Held> tickets, Time due);
  /// Nothing more will be put; what waits for its time is ready now.
  void close();

  /// Up to `most` tickets whose time has come; empty if there is none within `patience`, or while
  /// all that is taken fails. What is taken counts as in the store until `settle`.
  [[nodiscard]] std::vector<Held> take(std::size_t most, std::chrono::milliseconds patience);
  void settle(std::size_t tickets);
  /// As settle, for tickets that failed too often.
  void give_up(std::size_t tickets);
  /// Closed, and nothing is in the store or in work.
  [[nodiscard]] bool finished() const;
  [[nodiscard]] std::size_t size() const;

 private:
  void add(std::vector<Held> tickets, Time due);
  void remove(std::size_t tickets);

  mutable std::mutex mutex_;
  std::condition_variable room_;
  std::condition_variable ready_;
  std::size_t max_tickets_ = 1;
  std::size_t size_ = 0;  ///< ready, waiting and in work
  std::deque<Held> queue_;
  std::multimap<Time, Held> waiting_;
  bool closed_ = false;
  FailurePause pause_;
};

}  // namespace millrace
