#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace millrace {

/// Types that cross a plugin's border by being thrown need one identity in the whole process.
#define MILLRACE_EXPORT __attribute__((visibility("default")))

/// What a stage throws when trying again later may help: a server out of reach, a lock, a full
/// disk. The host calls again with the same batch after a pause (exponential, full jitter), so the
/// stage must leave the batch, its receipt included, as it was given.
class MILLRACE_EXPORT Transient : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// What a stage throws when certain items can never be handled. The host takes them out of the
/// batch, treats them as the stage's `on_reject` says, and calls again with the rest. Like
/// Transient it promises that the call had no effect.
class MILLRACE_EXPORT Rejected : public std::runtime_error {
 public:
  /// Every item of the batch is bad.
  explicit Rejected(const std::string& reason) : std::runtime_error(reason) {}
  /// `items` are positions in the batch, ascending, each once.
  Rejected(const std::string& reason, std::vector<std::size_t> items)
      : std::runtime_error(reason), items_(std::move(items)) {}

  /// Empty means all.
  [[nodiscard]] const std::vector<std::size_t>& items() const noexcept { return items_; }

 private:
  std::vector<std::size_t> items_;
};

/// What `open` throws when an option cannot work here (a filter that does not compile, a model that
/// does not fit its card). The host shows it at the option's place in the pipeline file, exit 2.
class MILLRACE_EXPORT ConfigError : public std::runtime_error {
 public:
  /// `option` may be empty: then the stage as a whole is meant.
  ConfigError(std::string option, const std::string& message)
      : std::runtime_error(message), option_(std::move(option)) {}

  [[nodiscard]] const std::string& option() const noexcept { return option_; }

 private:
  std::string option_;
};

}  // namespace millrace
