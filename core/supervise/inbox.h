#pragma once

#include <cerrno>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include <sys/eventfd.h>
#include <unistd.h>

#include "millrace/provider.h"

namespace millrace::host {

/// Takes what the provider's thread tells, the newest of each, and wakes the supervisor's.
class Inbox final : public ConfigListener {
 public:
  struct Unreadable {
    std::uint64_t generation = 0;
    std::string why;
  };
  struct News {
    std::optional<ConfigValues> values;
    std::optional<Unreadable> unreadable;
    std::optional<std::string> failure;  ///< the provider has given up
  };

  Inbox() : wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    if (wake_ < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
  }
  Inbox(const Inbox&) = delete;
  Inbox& operator=(const Inbox&) = delete;
  ~Inbox() override { ::close(wake_); }

  void changed(ConfigValues values) override {
    const std::lock_guard lock(mutex_);
    news_.unreadable.reset();
    news_.values = std::move(values);
    wake();
  }
  void unreadable(std::uint64_t generation, std::string why) override {
    const std::lock_guard lock(mutex_);
    news_.values.reset();
    news_.unreadable = Unreadable{generation, std::move(why)};
    wake();
  }
  void failed(std::string why) {
    const std::lock_guard lock(mutex_);
    news_.failure = std::move(why);
    wake();
  }

  /// Readable when there is something to take.
  [[nodiscard]] int descriptor() const noexcept { return wake_; }
  News take() {
    const std::lock_guard lock(mutex_);
    eventfd_t count = 0;
    ::eventfd_read(wake_, &count);
    return std::exchange(news_, {});
  }

 private:
  void wake() const noexcept { ::eventfd_write(wake_, 1); }

  const int wake_;
  std::mutex mutex_;
  News news_;
};

}  // namespace millrace::host
