#include "schedule.h"

#include <algorithm>

namespace millrace {

namespace {

/// So often the oldest chunk is tried before others may pass it.
constexpr std::uint32_t kPatience = 3;

}  // namespace

Schedule::Schedule(const UploadOptions& options)
    : first_(options.retry_first),
      most_(options.retry_max),
      refused_(options.refused_pause),
      random_(std::random_device{}()) {}

bool Schedule::open(Time now, std::size_t under_way) const {
  return now >= opens() && (failures_ == 0 || under_way == 0);
}

bool Schedule::ready(const Retry& retry, Time now) const {
  if (now >= retry.not_before) return true;
  return !retry.suspect && retry.successes_then != successes_;
}

Schedule::Time Schedule::opens() const { return std::max(not_before_, asked_); }

void Schedule::succeeded() {
  failures_ = 0;
  not_before_ = {};
  ++successes_;
}

void Schedule::failed(Retry& retry, Failure failure, std::optional<Duration> asked, Time now) {
  if (asked) asked_ = std::max(asked_, now + *asked);
  if (failure != Failure::again) {
    not_before_ = now + (failure == Failure::refused ? refused_ : jitter(bound(failures_)));
    ++failures_;
    return;
  }
  const bool others_passed = retry.failures > 0 && retry.successes_then != successes_;
  ++retry.failures;
  retry.successes_then = successes_;
  if (others_passed) retry.suspect = true;
  if (retry.suspect) {
    retry.not_before = now + bound(retry.failures) / 2 + jitter(bound(retry.failures) / 2);
    return;
  }
  not_before_ = now + jitter(bound(failures_));
  ++failures_;
  if (retry.failures >= kPatience) retry.not_before = now + 2 * bound(retry.failures);
}

void Schedule::hurry() { not_before_ = {}; }

/// How long a pause may be after so many failures before it.
Duration Schedule::bound(std::uint32_t failures) const {
  constexpr std::uint32_t kDoublings = 20;
  Duration bound = first_;
  for (std::uint32_t i = 0; i < std::min(failures, kDoublings) && bound < most_; ++i) bound *= 2;
  return std::min(bound, most_);
}

Duration Schedule::jitter(Duration bound) {
  return Duration(std::uniform_int_distribution<Duration::rep>(0, bound.count())(random_));
}

}  // namespace millrace
