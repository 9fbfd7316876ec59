#pragma once

#include <chrono>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/report.h"
#include "graph/plan.h"
#include "run/admin.h"
#include "run/control.h"
#include "run/logger.h"
#include "run/privileges.h"
#include "run/stage_runner.h"

namespace millrace::host {

/// The exit codes of `millrace`.
enum class Exit : std::uint8_t { done = 0, failed = 1, usage = 2, forced = 3, interrupted = 130 };

struct RunOptions {
  std::chrono::milliseconds drain{30000};  ///< how long an end by signal may take
  std::filesystem::path data_folder;
  bool summary = true;
  std::chrono::milliseconds blocked{10000};  ///< after that what is out of reach is not ready
  Admin* admin = nullptr;                    ///< answers for the pipeline; outlives it
  std::optional<Control> control{};          ///< the line to a supervisor
  Privileges privileges{};                   ///< given up when every stage is open
};

/// A pipeline that is put together and can be run once. A supervisor that hangs up its line is a
/// SIGTERM to it. Signals: from `open` on SIGINT, SIGTERM and SIGHUP are blocked in this thread,
/// and stay so: one that comes in the last moment does not end a program that has done its work.
/// `run` takes them, and one that comes while stages are opened ends the program. SIGPIPE must be
/// ignored by the program.
class Pipeline {
 public:
  Pipeline(const Plan& plan, const RunOptions& options, Logger& logger);
  Pipeline(const Pipeline&) = delete;
  Pipeline& operator=(const Pipeline&) = delete;
  ~Pipeline();

  /// Opens every stage, sources last, and gives up `privileges`; sinks and transforms are opened
  /// without them. What cannot work goes to `report` (a ConfigError, at the
  /// option's place) or is logged; only with `Exit::done` may `run` follow.
  [[nodiscard]] Exit open(Report& report);

  /// Runs until every source has ended or a signal came, drains, prints the summary. Does not
  /// return if the drain deadline passes: then the program names the stages that are stuck and ends
  /// at once with Exit::forced, because threads that are stuck cannot be ended one by one.
  [[nodiscard]] Exit run();

  [[nodiscard]] const std::vector<std::unique_ptr<StageRunner>>& stages() const { return runners_; }
  /// The stages that are in a call at this moment, and what those wait for whose call failed;
  /// empty: none. Any thread.
  [[nodiscard]] std::string at_work() const;
  /// Any thread.
  [[nodiscard]] Health health() const;

 private:
  /// What it is doing, for its health.
  struct Phase {
    std::string_view status = Health::kStarting;
    std::string opening{};  ///< the stage that is being opened
    std::chrono::steady_clock::time_point since = std::chrono::steady_clock::now();
  };
  void enter(Phase phase);

  [[nodiscard]] bool open_stages(Report& report);
  [[nodiscard]] bool open_stage(StageRunner& runner, Report& report);
  void connect();
  void wait_for_end();
  void tell_supervisor(bool now = false);
  [[nodiscard]] int line() const { return options_.control ? options_.control->descriptor() : -1; }
  void show_progress();
  [[noreturn]] void force_end(const std::string& why);
  void print_summary();
  void report_failure();
  [[nodiscard]] Exit conclude();

  const Plan& plan_;
  const RunOptions options_;
  Logger& logger_;
  const bool progress_;  ///< there is a terminal for it
  RunState state_;
  mutable std::mutex phase_mutex_;
  Phase phase_;
  std::vector<std::unique_ptr<StageRunner>> runners_;
  std::atomic<std::size_t> threads_left_{0};
  int ended_fd_ = -1;
  bool asked_to_end_ = false;  ///< by a signal or a supervisor, before a stage failed
  std::chrono::steady_clock::time_point started_;
  std::chrono::steady_clock::time_point told_{};
  std::chrono::steady_clock::time_point shown_{};
};

/// The table of all stages' accounts for a person, and as one JSON object.
[[nodiscard]] std::string summary_text(const std::vector<std::unique_ptr<StageRunner>>& stages);
[[nodiscard]] std::string summary_json(const std::vector<std::unique_ptr<StageRunner>>& stages);

/// For --admin.
[[nodiscard]] std::string metrics_text(const std::vector<std::unique_ptr<StageRunner>>& stages,
                                       bool ready);

/// Where a stage's books do not balance, in words; empty if they all do. Holds after a run in which
/// no stage failed.
[[nodiscard]] std::vector<std::string> imbalances(
    const std::vector<std::unique_ptr<StageRunner>>& stages);

}  // namespace millrace::host
