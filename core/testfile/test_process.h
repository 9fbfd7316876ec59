#pragma once

#include <csignal>
#include <filesystem>
#include <string>
#include <vector>

#include "testfile/test_run.h"

namespace millrace::host {

/// What ends a `millrace test` early: SIGINT and SIGTERM. While one of these lives they are blocked
/// in its thread, and so is SIGCHLD.
class TestSignals {
 public:
  TestSignals();
  TestSignals(const TestSignals&) = delete;
  TestSignals& operator=(const TestSignals&) = delete;
  ~TestSignals();

  /// Waits for a signal, for `patience` at most.
  void wait(std::chrono::milliseconds patience);
  [[nodiscard]] bool interrupted() const { return interrupted_; }
  /// As it was before.
  [[nodiscard]] const sigset_t& mask() const { return before_; }

 private:
  sigset_t before_{};
  int descriptor_ = -1;
  bool interrupted_ = false;
};

/// Runs one test in a process of its own: `arguments` of this program make it call report_result. A
/// process that crashes or hangs is a failed test. `folder` is the test's ${TMP}.
[[nodiscard]] TestResult run_in_process(const std::vector<std::string>& arguments,
                                        const std::filesystem::path& folder, Duration timeout,
                                        TestSignals& signals);

/// In that process: sends what it says to files in `folder`, and ends it when its parent ends.
void become_test_process(const std::filesystem::path& folder);
/// The file that the logger of a test process writes.
[[nodiscard]] std::filesystem::path log_of(const std::filesystem::path& folder);
void report_result(const std::filesystem::path& folder, const TestResult& result);

}  // namespace millrace::host
