#pragma once

#include <chrono>
#include <cstdint>

namespace millrace {

/// Nanoseconds; every duration of the SDK and of pipeline files.
using Duration = std::chrono::nanoseconds;

/// A point in time as captures carry it: nanoseconds since 1970-01-01T00:00:00 UTC, no leap
/// seconds.
using Timestamp = std::chrono::sys_time<Duration>;

/// "No time is known yet": earlier than every packet.
inline constexpr Timestamp kNoTime = Timestamp::min();

/// A number of bytes in an options struct; pipeline files write it as `"64MiB"` or as an integer.
struct ByteSize {
  std::uint64_t bytes = 0;
  friend constexpr auto operator<=>(ByteSize, ByteSize) = default;
};

inline namespace literals {
// NOLINTBEGIN(google-runtime-int): the standard fixes the parameter of a literal operator
constexpr ByteSize operator""_KiB(unsigned long long n) { return {n << 10U}; }
constexpr ByteSize operator""_MiB(unsigned long long n) { return {n << 20U}; }
constexpr ByteSize operator""_GiB(unsigned long long n) { return {n << 30U}; }
// NOLINTEND(google-runtime-int)
}  // namespace literals

}  // namespace millrace
