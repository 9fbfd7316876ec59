#pragma once

#include <chrono>
#include <csignal>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "supervise/handover.h"
#include "supervise/process.h"

namespace millrace::host {

/// A process of this program that was handed a configuration: it checks a pipeline, or runs it.
/// What it tells us is kept here. One thread.
class Worker {
 public:
  enum class Task : std::uint8_t {
    check,  ///< tells by what it prints to standard error
    run     ///< tells by Control messages; prints to our standard error
  };

  /// In the new process: the numbers of the configuration's descriptor and of the line's.
  static constexpr int kHandover = 3;
  static constexpr int kLine = 4;

  /// Throws std::system_error.
  Worker(Task task, const std::vector<std::string>& arguments, Handover handover,
         const sigset_t& mask);
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;
  ~Worker();

  [[nodiscard]] const Handover& handover() const noexcept { return handover_; }
  [[nodiscard]] Process& process() noexcept { return *process_; }
  /// Readable when something was told; -1 when nothing more will be.
  [[nodiscard]] int descriptor() const noexcept { return line_; }

  /// Takes what was told. True if that was something new.
  bool listen();
  /// A pipeline has opened every stage.
  [[nodiscard]] bool is_up() const noexcept { return !counts_.empty(); }
  [[nodiscard]] const std::string& counts() const noexcept { return counts_; }
  /// What it answers for --admin: JSON and text; empty until it has.
  [[nodiscard]] const std::string& health() const noexcept { return health_; }
  [[nodiscard]] const std::string& metrics() const noexcept { return metrics_; }
  /// When it was heard of last.
  [[nodiscard]] std::chrono::steady_clock::time_point heard() const noexcept { return heard_; }
  /// The errors it told.
  [[nodiscard]] const std::string& errors() const noexcept { return errors_; }

 private:
  void hang_up() noexcept;

  const Task task_;
  const Handover handover_;
  int line_ = -1;
  std::string counts_;
  std::string health_;
  std::string metrics_;
  std::string metrics_parts_;
  std::chrono::steady_clock::time_point heard_ = std::chrono::steady_clock::now();
  std::string errors_;
  std::unique_ptr<Process> process_;
};

}  // namespace millrace::host
