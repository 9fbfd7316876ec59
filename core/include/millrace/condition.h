#pragma once

#include <cstdint>
#include <string_view>

namespace millrace {

/// Something that must hold for a stage to do its work: a server can be reached, a queue has its
/// consumer, no session was lost. A stage gets one by name from Context::condition and reports what
/// it finds, as often as it likes: only changes are logged, once each ("lost", "back"). While it
/// fails, /health and the metrics show it. Any thread.
class Condition {
 public:
  /// When a failing condition makes the pipeline not ready.
  enum class Grace : std::uint8_t {
    wait,  ///< when it has failed for the host's `--blocked` time: servers do restart
    none,  ///< at once
  };

  Condition() = default;
  Condition(const Condition&) = delete;
  Condition& operator=(const Condition&) = delete;
  virtual ~Condition() = default;

  /// It does not hold (any more). `why` is a sentence for the operator, and replaces the one
  /// before.
  virtual void fails(std::string_view why, Grace grace = Grace::wait) noexcept = 0;
  /// It holds (again). A condition that was never reported holds.
  virtual void holds() noexcept = 0;
};

}  // namespace millrace
