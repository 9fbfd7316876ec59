#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "millrace/context.h"

#include "run/account.h"
#include "run/logger.h"

namespace millrace::host {

/// The time of the system.
class SystemClock final : public Clock {
 public:
  [[nodiscard]] Timestamp now() const override {
    return std::chrono::time_point_cast<Duration>(std::chrono::system_clock::now());
  }
};

/// What the stages of one process share.
struct Surroundings {
  Logger& logger;
  std::filesystem::path data_folder;
  SharedObjects shared{};
  /// Why the pipeline is not ready, see Context::not_ready; set before any stage is opened.
  std::function<std::string()> not_ready{};
  /// See Context::incomplete.
  std::function<std::string()> incomplete{};
};

/// The Context of one instance of a stage, or of a config provider. The account and the
/// surroundings outlive it.
class HostContext final : public Context {
 public:
  /// What becomes of items that are rejected late; a config provider has none.
  using Reject = std::function<void(std::string_view reason, BatchBase& items)>;

  HostContext(std::string name, bool counts_handled, Account& account, Surroundings& surroundings,
              Reject reject = {})
      : name_(std::move(name)),
        counts_handled_(counts_handled),
        account_(account),
        surroundings_(surroundings),
        reject_(std::move(reject)) {}

  [[nodiscard]] std::string_view stage() const override { return name_; }
  [[nodiscard]] const Clock& clock() const override { return clock_; }
  void log(LogLevel level, std::string_view message) override {
    surroundings_.logger.log(level, name_, message);
  }
  Counter& counter(std::string_view name) override { return account_.counter(name); }
  void dropped(std::string_view reason, std::uint64_t n) override {
    if (n == 0) return;
    account_.drop(reason, n);
    dropped_items.add(n);
  }
  void handled(std::uint64_t n) override {
    if (counts_handled_) account_.handled.add(n);
  }
  void rejected(std::string_view reason, BatchBase& items) override {
    if (reject_) reject_(reason, items);
  }
  void progress(std::uint64_t done, std::uint64_t total) override {
    account_.progress_done = done;
    account_.progress_total = total;
  }
  Condition& condition(std::string_view name) override {
    return account_.conditions.get(name, [this](LogLevel level, std::string_view message) {
      surroundings_.logger.log(level, name_, message);
    });
  }
  [[nodiscard]] std::string not_ready() const override {
    return surroundings_.not_ready ? surroundings_.not_ready() : std::string();
  }
  [[nodiscard]] std::string incomplete() const override {
    return surroundings_.incomplete ? surroundings_.incomplete() : std::string();
  }
  [[nodiscard]] std::filesystem::path find_file(const std::filesystem::path& path) const override {
    return millrace::find_file(path, surroundings_.data_folder);
  }

  Counter dropped_items;  ///< by this instance

 protected:
  std::shared_ptr<void> shared_erased(std::string_view name,
                                      const std::function<std::shared_ptr<void>()>& make) override {
    return surroundings_.shared.get(name, make);
  }

 private:
  const std::string name_;
  const bool counts_handled_;
  Account& account_;
  Surroundings& surroundings_;
  const Reject reject_;
  SystemClock clock_;
};

}  // namespace millrace::host
