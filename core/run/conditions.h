#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "millrace/condition.h"
#include "millrace/context.h"

namespace millrace::host {

/// The conditions of one stage, by name. Any thread.
class Conditions {
 public:
  using Time = std::chrono::steady_clock::time_point;
  using Log = std::function<void(LogLevel level, std::string_view message)>;

  /// One that fails at this moment.
  struct Failing {
    std::string name;
    std::string why;
    Time since{};
    bool at_once = false;  ///< Condition::Grace::none
  };
  /// For the metrics: every condition that was asked for.
  struct State {
    std::string name;
    bool holds = true;
  };

  Conditions();
  Conditions(const Conditions&) = delete;
  Conditions& operator=(const Conditions&) = delete;
  ~Conditions();

  /// The same name gives the same condition, which lives as long as this. `log` gets its changes.
  Condition& get(std::string_view name, const Log& log);
  [[nodiscard]] std::vector<Failing> failing() const;
  [[nodiscard]] std::vector<State> states() const;

 private:
  class Entry;

  mutable std::mutex mutex_;
  std::deque<Entry> entries_;  // a deque: references stay valid
};

}  // namespace millrace::host
