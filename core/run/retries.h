#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "millrace/receipt.h"

namespace millrace::host {

/// The calls of a stage that are made again because they failed for a passing reason, over all its
/// workers. From the first failure until a call succeeds while no other fails is an outage. Any
/// thread; nothing here is touched until a call has failed.
class Retries {
 public:
  using Time = std::chrono::steady_clock::time_point;

  struct Outage {
    Time since{};
    std::uint64_t failures = 0;
    std::string why;  ///< the last error
    bool told = false;

    /// "works again after 12 tries, 3.4 s"
    [[nodiscard]] std::string over() const;
  };

  /// One call with all its attempts; lives on the thread that makes them.
  class Call {
   public:
    explicit Call(Retries& retries) noexcept : retries_(retries) {}
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;
    ~Call() {
      if (failures_ > 0) retries_.end();
    }

    /// It has failed once more. Returns how long to wait before the next attempt; nothing if
    /// `retry_for` has passed since it failed first, or the deadline has.
    std::optional<std::chrono::nanoseconds> failed(std::string_view why,
                                                   std::chrono::nanoseconds retry_for,
                                                   const Receipt::Deadline& deadline);
    [[nodiscard]] int failures() const noexcept { return failures_; }
    /// "gave up after 3 attempts in 2.1 s: connection refused"
    [[nodiscard]] std::string gave_up(std::string_view why) const;

   private:
    Retries& retries_;
    int failures_ = 0;
    Time since_{};
    Time::duration lasted_{};  ///< from the first failure to the last
  };

  /// "retrying for 12 s: connection refused" while a call waits for its next attempt or makes it,
  /// else empty.
  [[nodiscard]] std::string text() const;
  /// Nothing while calls succeed.
  [[nodiscard]] std::optional<Outage> outage() const;
  /// The outage is to be reported now: not yet, and no other began within the last second. A stage
  /// that fails and works by turns does not flood the log.
  [[nodiscard]] bool tell(Time now = std::chrono::steady_clock::now());
  /// A call has succeeded that had failed before (`repeated`), or that came after one that was
  /// given up. The outage that has ended by this, if it has.
  [[nodiscard]] std::optional<Outage> succeeded(bool repeated);

 private:
  void failed(std::string_view why, bool first, Time now);
  void end() noexcept;

  mutable std::mutex mutex_;
  std::size_t calls_ = 0;  ///< that have failed and go on
  std::optional<Outage> outage_;
  std::optional<Time> told_;
};

}  // namespace millrace::host
