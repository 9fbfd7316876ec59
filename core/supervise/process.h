#pragma once

#include <csignal>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <sys/types.h>

namespace millrace::host {

/// How a process ended.
struct ProcessEnd {
  int exit_code = 0;
  int signal = 0;  ///< not 0: it was ended by this signal

  [[nodiscard]] bool exited_with(int code) const { return signal == 0 && exit_code == code; }
  /// "exit code 3", "signal 9 (Killed)"
  [[nodiscard]] std::string text() const;
};

/// This program, started anew with other arguments, in a process group of its own: a Ctrl-C on the
/// terminal is the supervisor's, which passes it on. One thread at a time. A process that still
/// runs when this goes away is killed and waited for, so there are no zombies.
class Process {
 public:
  /// A descriptor of ours, and its number in the new process. Everything else that is not
  /// close-on-exec is inherited.
  using Descriptors = std::vector<std::pair<int, int>>;

  /// Throws std::system_error. `mask` are the signals that are blocked in the new process.
  Process(const std::vector<std::string>& arguments, const Descriptors& descriptors,
          const sigset_t& mask);
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  ~Process();

  [[nodiscard]] pid_t pid() const noexcept { return pid_; }
  void send(int signal) const noexcept;
  /// Nothing while it runs.
  [[nodiscard]] std::optional<ProcessEnd> end();

 private:
  pid_t pid_ = 0;
  std::optional<ProcessEnd> end_;
};

}  // namespace millrace::host
