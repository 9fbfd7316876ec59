#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <system_error>

#include "millrace/condition.h"
#include "millrace/time.h"

namespace millrace {

struct BatchBase;

enum class LogLevel : std::uint8_t { debug, info, warning, error };

/// A number that only grows. Any thread may add.
class Counter {
 public:
  void add(std::uint64_t n = 1) noexcept { value_.fetch_add(n, std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t value() const noexcept {
    return value_.load(std::memory_order_relaxed);
  }

 private:
  std::atomic<std::uint64_t> value_{0};
};

/// Objects that stages have in common, by name; see Context::shared. Any thread.
class SharedObjects {
 public:
  std::shared_ptr<void> get(std::string_view name,
                            const std::function<std::shared_ptr<void>()>& make) {
    const std::lock_guard lock(mutex_);
    std::weak_ptr<void>& place = objects_[std::string(name)];
    std::shared_ptr<void> object = place.lock();
    if (!object) place = object = make();
    return object;
  }

 private:
  std::mutex mutex_;
  std::map<std::string, std::weak_ptr<void>> objects_;
};

/// Time for stages. Tests hold it still; nothing in a stage asks the system instead.
class Clock {
 public:
  Clock() = default;
  Clock(const Clock&) = delete;
  Clock& operator=(const Clock&) = delete;
  virtual ~Clock() = default;
  /// Wall clock time.
  [[nodiscard]] virtual Timestamp now() const = 0;
};

/// What Context::find_file returns, with the installation's data folder.
[[nodiscard]] inline std::filesystem::path find_file(const std::filesystem::path& path,
                                                     const std::filesystem::path& data_folder) {
  std::error_code error;
  if (path.is_absolute() || std::filesystem::exists(path, error)) return path;
  std::filesystem::path installed = data_folder / path;
  return std::filesystem::exists(installed, error) ? installed : path;
}

/// What the host offers to one stage. It is handed to `open` and outlives the stage. All functions
/// may be called from any thread.
class Context {
 public:
  Context() = default;
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
  virtual ~Context() = default;

  /// The stage's name in the pipeline file.
  [[nodiscard]] virtual std::string_view stage() const = 0;
  [[nodiscard]] virtual const Clock& clock() const = 0;
  virtual void log(LogLevel level, std::string_view message) = 0;

  void debug(std::string_view message) { log(LogLevel::debug, message); }
  void info(std::string_view message) { log(LogLevel::info, message); }
  void warning(std::string_view message) { log(LogLevel::warning, message); }
  void error(std::string_view message) { log(LogLevel::error, message); }

  /// A counter of the stage beside the host's own, shown in the summary and the metrics. The same
  /// name gives the same counter, also to other instances of the stage. Ask once, in `open`.
  virtual Counter& counter(std::string_view name) = 0;
  /// Counts input items (of a source: items it read and does not give on) that are dropped on
  /// purpose, under a reason such as "no-session".
  virtual void dropped(std::string_view reason, std::uint64_t n) = 0;
  /// For a stage that is declared `aggregates`: n more input items have gone on as part of an
  /// output. At the end of a run in = handled + dropped + rejected must hold.
  virtual void handled(std::uint64_t n) = 0;
  /// For a stage that is declared `aggregates` and hears only after its call has returned that
  /// items can never be handled: the host treats all of `items` as if the call had thrown Rejected
  /// with them, and resolves their receipt.
  virtual void rejected(std::string_view reason, BatchBase& items) = 0;
  /// An object that stages of one running pipeline have in common: the one that bears this name, or
  /// what `make` returns if there is none yet. The name must begin with the plugin's, and always
  /// stand for the same type. The object lives as long as one of those who asked holds it.
  template <class T, class Make>
  std::shared_ptr<T> shared(std::string_view name, Make make) {
    return std::static_pointer_cast<T>(
        shared_erased(name, [&make]() -> std::shared_ptr<void> { return make(); }));
  }

  /// A finite source tells how far it is, in bytes or any other unit. `total` 0: not known.
  virtual void progress(std::uint64_t done, std::uint64_t total) = 0;

  /// A condition that the stage needs to do its work, see Condition. The same name gives the same
  /// condition, also to other instances of the stage; it lives as long as the context. A call that
  /// throws Transient needs none: the host reports it by itself.
  virtual Condition& condition(std::string_view name) = 0;
  /// Why the pipeline as a whole cannot do its work at this moment, as /health says it; empty: it
  /// can. For a stage that answers for others, such as a receiver of uploads.
  [[nodiscard]] virtual std::string not_ready() const = 0;
  /// For `flush`: why the input that has ended is not whole. A stage has failed, or a source was
  /// stopped before the end of what it reads (it had told its `progress`). Empty: it is whole. A
  /// stage that replaces an earlier result by one of the whole input must not do so otherwise.
  [[nodiscard]] virtual std::string incomplete() const = 0;

  /// An input file named in the pipeline file (a model, a capture): `path` as it is if it is
  /// absolute or exists below the working folder, else below the data folder of the installation if
  /// it exists there, else as it is.
  [[nodiscard]] virtual std::filesystem::path find_file(
      const std::filesystem::path& path) const = 0;

 protected:
  virtual std::shared_ptr<void> shared_erased(
      std::string_view name, const std::function<std::shared_ptr<void>()>& make) = 0;
};

}  // namespace millrace
