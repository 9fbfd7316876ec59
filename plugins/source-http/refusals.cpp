#include "refusals.h"

#include <algorithm>
#include <utility>
#include <vector>

#include <fmt/format.h>

namespace millrace {

namespace {

constexpr std::chrono::seconds kPeriod{10};
constexpr std::size_t kMostNames = 1024;
constexpr std::size_t kMostShown = 5;

/// What says something of the capture is worth a line of its own more often than being busy.
std::uint64_t own_lines(unsigned status) {
  constexpr std::uint64_t kOfCaptures = 5;
  return status == 400 || status == 413 || status == 415 ? kOfCaptures : 1;
}

}  // namespace

void Refusals::add(unsigned status, const std::string& who, std::string_view reason,
                   const std::string& what) {
  {
    const std::lock_guard lock(mutex_);
    Period& period = periods_[status];
    if (period.shown == 0) period.begin = std::chrono::steady_clock::now();
    if (period.shown >= own_lines(status)) {
      ++period.untold;
      period.reason = reason;
      if (period.by.size() < kMostNames || period.by.contains(who)) ++period.by[who];
      return;
    }
    ++period.shown;
  }
  context_.warning(what);
}

void Refusals::tell(bool all) {
  std::vector<std::string> lines;
  {
    const std::lock_guard lock(mutex_);
    const auto now = std::chrono::steady_clock::now();
    for (auto at = periods_.begin(); at != periods_.end();) {
      const unsigned status = at->first;
      Period& period = at->second;
      if (!all && now - period.begin < kPeriod) {
        ++at;
        continue;
      }
      if (period.untold == 0) {
        at = periods_.erase(at);
        continue;
      }
      std::vector<std::pair<std::uint64_t, std::string_view>> most;
      std::uint64_t named = 0;
      for (const auto& [who, count] : period.by) most.emplace_back(count, who);
      std::ranges::sort(most, std::greater{});
      std::string from;
      for (std::size_t i = 0; i < std::min(most.size(), kMostShown); ++i) {
        from +=
            fmt::format("{}{} from {}", from.empty() ? "" : ", ", most[i].first, most[i].second);
        named += most[i].first;
      }
      if (named < period.untold) from += fmt::format(", {} from others", period.untold - named);
      lines.push_back(fmt::format(
          "{} more uploads refused, {}, within {:.0f} s: {}; the last reason: {}", period.untold,
          status, std::chrono::duration<double>(now - period.begin).count(), from, period.reason));
      // The next period begins at once, without lines of its own, as long as it goes on.
      period = {now, own_lines(status), 0, {}, {}};
      ++at;
    }
  }
  for (const std::string& line : lines) context_.warning(line);
}

}  // namespace millrace
