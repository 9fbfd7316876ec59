#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "run/pipeline.h"
#include "testfile/test_plan.h"

namespace millrace::host {

/// How a test went.
struct TestResult {
  enum class Outcome : std::uint8_t { passed, failed, skipped };
  Outcome outcome = Outcome::passed;
  std::vector<std::string> problems;  ///< each of one or more lines
  std::string reason;                 ///< why it was skipped
  std::chrono::milliseconds duration{};
  std::string log;     ///< what the pipeline said; empty unless it failed
  std::string folder;  ///< its files, if they were kept

  void fail(std::string problem) {
    outcome = Outcome::failed;
    problems.push_back(std::move(problem));
  }
};

[[nodiscard]] std::string to_json_text(const TestResult& result);
[[nodiscard]] TestResult from_json_text(const std::string& text);

/// What a run of the pipeline under test needs from around it.
struct TestRunOptions {
  std::filesystem::path data_folder;
  std::filesystem::path log;  ///< where the logger's lines go, for `fails`
  /// Told if the test's time is over; must not return.
  std::function<void(const TestResult&)> on_timeout;
};

/// Runs the pipeline as `millrace run` does, to the end of its sources, and compares.
[[nodiscard]] TestResult run_test(const TestFile& file, const Test& test, const TestPlan& plan,
                                  const Report& report, const TestRunOptions& options,
                                  Logger& logger);

/// Compares only what came with what was expected; `stages` are those of a pipeline that has ended.
void check_expectations(const TestFile& file, const Test& test, const TestPlan& plan,
                        const std::vector<std::unique_ptr<StageRunner>>& stages,
                        TestResult& result);

}  // namespace millrace::host
