#include "run/retries.h"

#include <algorithm>
#include <random>

#include <fmt/format.h>

namespace millrace::host {

namespace {

/// Full jitter: a pause between nothing and an exponentially growing bound, so that many clients of
/// a server that comes back do not come back together.
std::chrono::milliseconds backoff(int failures) {
  constexpr int kFirstBound = 50;
  constexpr int kLastBound = 5000;
  const int bound = std::min(kLastBound, kFirstBound << std::min(failures - 1, 10));
  thread_local std::minstd_rand random(std::random_device{}());
  return std::chrono::milliseconds(std::uniform_int_distribution(1, bound)(random));
}

}  // namespace

std::optional<std::chrono::nanoseconds> Retries::Call::failed(std::string_view why,
                                                              std::chrono::nanoseconds retry_for,
                                                              const Receipt::Deadline& deadline) {
  const auto now = std::chrono::steady_clock::now();
  if (failures_++ == 0) retries_.begin(since_ = now);
  retries_.note(why);
  lasted_ = now - since_;
  // Not to since_ + retry_for, which may be beyond the end of time.
  std::chrono::nanoseconds left = retry_for - lasted_;
  if (deadline) left = std::min<std::chrono::nanoseconds>(left, *deadline - now);
  if (left.count() <= 0) return std::nullopt;
  // No longer than what is left, so that the last attempt is made when the time is over.
  return std::min<std::chrono::nanoseconds>(left, backoff(failures_));
}

std::string Retries::Call::gave_up(std::string_view why) const {
  return fmt::format("gave up after {} attempts in {:.1f} s: {}", failures_,
                     std::chrono::duration<double>(lasted_).count(), why);
}

std::string Retries::text() const {
  const std::lock_guard lock(mutex_);
  if (calls_ == 0) return {};
  const auto lasted =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now() - since_);
  return fmt::format("retrying for {} s: {}", lasted.count(), why_);
}

void Retries::begin(Time since) {
  const std::lock_guard lock(mutex_);
  if (calls_++ == 0) since_ = since;
}

void Retries::note(std::string_view why) {
  const std::lock_guard lock(mutex_);
  why_ = why;
}

void Retries::end() noexcept {
  const std::lock_guard lock(mutex_);
  --calls_;
}

}  // namespace millrace::host
