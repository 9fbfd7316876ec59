#include "run/retries.h"

#include <algorithm>
#include <random>
#include <utility>

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
  if (failures_ == 0) since_ = now;
  retries_.failed(why, failures_++ == 0, now);
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

std::string Retries::Outage::over() const {
  return fmt::format(
      "works again after {} {}, {:.1f} s", failures, failures == 1 ? "try" : "tries",
      std::chrono::duration<double>(std::chrono::steady_clock::now() - since).count());
}

std::string Retries::text() const {
  const std::lock_guard lock(mutex_);
  if (calls_ == 0 || !outage_) return {};
  const auto lasted = std::chrono::duration_cast<std::chrono::seconds>(
      std::chrono::steady_clock::now() - outage_->since);
  return fmt::format("retrying for {} s: {}", lasted.count(), outage_->why);
}

std::optional<Retries::Outage> Retries::outage() const {
  const std::lock_guard lock(mutex_);
  return outage_;
}

bool Retries::tell(Time now) {
  constexpr std::chrono::seconds kPeriod{1};
  const std::lock_guard lock(mutex_);
  if (!outage_ || outage_->told || (told_ && now - *told_ < kPeriod)) return false;
  told_ = now;
  return outage_->told = true;
}

std::optional<Retries::Outage> Retries::succeeded(bool repeated) {
  const std::lock_guard lock(mutex_);
  // The call that succeeded is one of them until it goes away.
  if (calls_ > (repeated ? 1 : 0)) return std::nullopt;
  return std::exchange(outage_, std::nullopt);
}

void Retries::failed(std::string_view why, bool first, Time now) {
  const std::lock_guard lock(mutex_);
  if (first) ++calls_;
  if (!outage_) outage_.emplace().since = now;
  ++outage_->failures;
  outage_->why = why;
}

void Retries::end() noexcept {
  const std::lock_guard lock(mutex_);
  --calls_;
}

}  // namespace millrace::host
