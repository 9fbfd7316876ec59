#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "millrace/time.h"

namespace millrace {

/// What became of one request to a server.
struct Answer {
  enum class Verdict : std::uint8_t {
    delivered,
    again,        ///< no answer, or one that says: later
    unreachable,  ///< no connection
    refused,      ///< it says nothing of what was sent: token, certificate or URL are wrong
    rejected,     ///< what was sent will never be taken
    aborted       ///< this process wants to end
  };

  Verdict verdict = Verdict::again;
  std::string reason{};  ///< for people; empty if delivered
  std::optional<Duration> retry_after{};
};

/// What a status of HTTP means for what was sent.
[[nodiscard]] Answer::Verdict verdict_of(long status);

}  // namespace millrace
