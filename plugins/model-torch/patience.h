#pragma once

#include <condition_variable>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>

#include <fmt/format.h>

#include "millrace/context.h"

namespace millrace {

/// Says in the log what the start waits for, as long as this object lives: a model is a program,
/// and may take long, or never end.
class Patience {
 public:
  static constexpr std::chrono::seconds kFirst{3};
  static constexpr std::chrono::seconds kLater{30};

  Patience(Context& context, std::string what, Duration first = kFirst, Duration later = kLater)
      : thread_([&context, what = std::move(what), first, later](const std::stop_token& stop) {
          std::mutex mutex;
          std::condition_variable_any never;
          std::unique_lock lock(mutex);
          Duration waited = first;
          for (Duration wait = first;; wait = later, waited += later) {
            if (never.wait_for(lock, stop, wait, [&stop] { return stop.stop_requested(); })) return;
            if (stop.stop_requested()) return;
            context.warning(
                fmt::format("still waiting for {}, since {} s", what,
                            std::chrono::duration_cast<std::chrono::seconds>(waited).count()));
          }
        }) {}
  Patience(const Patience&) = delete;
  Patience& operator=(const Patience&) = delete;
  ~Patience() = default;

 private:
  std::jthread thread_;
};

}  // namespace millrace
