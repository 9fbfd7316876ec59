#include "run/conditions.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

namespace millrace::host {

class Conditions::Entry final : public Condition {
 public:
  Entry(std::string_view name, Log log) : name_(name), log_(std::move(log)) {}

  [[nodiscard]] const std::string& name() const { return name_; }

  void fails(std::string_view why, Grace grace) noexcept override {
    try {
      std::string line;
      {
        const std::lock_guard lock(mutex_);
        why_ = why;
        at_once_ = grace == Grace::none;
        if (failing_) return;
        failing_ = true;
        since_ = std::chrono::steady_clock::now();
        line = fmt::format("{}: {}", name_, why);
      }
      log_(grace == Grace::none ? LogLevel::error : LogLevel::warning, line);
    } catch (const std::exception&) {
      // Out of memory: it counts as failing all the same, with the reason given before.
    }
  }

  void holds() noexcept override {
    try {
      std::string line;
      {
        const std::lock_guard lock(mutex_);
        if (!std::exchange(failing_, false)) return;
        const auto lasted = std::chrono::steady_clock::now() - since_;
        line = fmt::format("{}: works again after {:.1f} s", name_,
                           std::chrono::duration<double>(lasted).count());
      }
      log_(LogLevel::info, line);
    } catch (const std::exception&) {
      // Out of memory: only the line is missing.
    }
  }

  [[nodiscard]] State state() const {
    const std::lock_guard lock(mutex_);
    return {name_, !failing_};
  }
  void add_to(std::vector<Failing>& list) const {
    const std::lock_guard lock(mutex_);
    if (failing_) list.push_back({name_, why_, since_, at_once_});
  }

 private:
  const std::string name_;
  const Log log_;
  mutable std::mutex mutex_;
  bool failing_ = false;
  bool at_once_ = false;
  std::string why_;
  Time since_{};
};

Conditions::Conditions() = default;
Conditions::~Conditions() = default;

Condition& Conditions::get(std::string_view name, const Log& log) {
  const std::lock_guard lock(mutex_);
  const auto known = std::ranges::find(entries_, name, &Entry::name);
  return known != entries_.end() ? *known : entries_.emplace_back(name, log);
}

std::vector<Conditions::Failing> Conditions::failing() const {
  const std::lock_guard lock(mutex_);
  std::vector<Failing> list;
  for (const Entry& entry : entries_) entry.add_to(list);
  return list;
}

std::vector<Conditions::State> Conditions::states() const {
  const std::lock_guard lock(mutex_);
  std::vector<State> list;
  for (const Entry& entry : entries_) list.push_back(entry.state());
  return list;
}

}  // namespace millrace::host
