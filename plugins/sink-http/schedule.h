#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <random>

#include "millrace/time.h"

#include "chunk.h"
#include "options.h"

namespace millrace {

/// Why a chunk has to be sent again.
enum class Failure : std::uint8_t {
  again,        ///< no answer, or one that says: later
  unreachable,  ///< there was no connection, so it cannot be the chunk
  refused       ///< token, certificate or URL are wrong: until somebody repairs that
};

/// Decides when the server is tried again, and with which chunk.
///
/// As long as uploads fail one chunk is tried at a time, after pauses that double up to a bound
/// (full jitter). The oldest chunk is first. If it fails several times others are let through once:
/// when one of them is accepted, it was the chunk and not the server, and the chunk alone waits.
///
/// Threads: one at a time. Time is given, so tests need not wait.
class Schedule {
 public:
  using Time = std::chrono::steady_clock::time_point;
  explicit Schedule(const UploadOptions& options);

  /// Whether any chunk may be sent while `under_way` are.
  [[nodiscard]] bool open(Time now, std::size_t under_way) const;
  [[nodiscard]] bool ready(const Retry& retry, Time now) const;
  /// When it is worth looking again, for a chunk that is not ready.
  [[nodiscard]] Time opens() const;

  void succeeded();
  void failed(Retry& retry, Failure failure, std::optional<Duration> asked, Time now);
  /// The end is near: what was not asked for by the server is not waited for.
  void hurry();

 private:
  [[nodiscard]] Duration bound(std::uint32_t failures) const;
  Duration jitter(Duration bound);

  Duration first_;
  Duration most_;
  Duration refused_;
  std::uint32_t failures_ = 0;  ///< since the last success
  std::uint64_t successes_ = 0;
  Time not_before_{};
  Time asked_{};  ///< the server said so
  std::minstd_rand random_;
};

}  // namespace millrace
