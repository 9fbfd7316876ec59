#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "millrace/provider.h"

namespace millrace {

/// A listener for tests that keeps what it is told, as "key=value key=value" or "! why".
class ConfigRecorder final : public ConfigListener {
 public:
  void changed(ConfigValues values) override {
    std::string text;
    for (const auto& [key, value] : values.values) {
      text += (text.empty() ? "" : " ") + key + '=' + value;
    }
    add(values.generation, std::move(text));
  }
  void unreadable(std::uint64_t generation, std::string why) override {
    add(generation, "! " + why);
  }

  /// The n-th thing it was told, counted from 1; "nothing" if it does not come.
  std::string wait_for(std::size_t n) {
    std::unique_lock lock(mutex_);
    const auto is_there = [&] { return told_.size() >= n; };
    return news_.wait_for(lock, std::chrono::seconds(30), is_there) ? told_[n - 1].second
                                                                    : "nothing";
  }
  /// Of the same.
  std::uint64_t generation(std::size_t n) {
    const std::lock_guard lock(mutex_);
    return told_.at(n - 1).first;
  }
  std::size_t count() {
    const std::lock_guard lock(mutex_);
    return told_.size();
  }

 private:
  void add(std::uint64_t generation, std::string text) {
    const std::lock_guard lock(mutex_);
    told_.emplace_back(generation, std::move(text));
    news_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable news_;
  std::vector<std::pair<std::uint64_t, std::string>> told_;
};

}  // namespace millrace
