#pragma once

#include <chrono>
#include <csignal>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <stop_token>
#include <string>
#include <vector>

#include "millrace/provider.h"

#include "graph/plan.h"
#include "run/account.h"
#include "run/admin.h"
#include "run/health.h"
#include "run/host_context.h"
#include "run/logger.h"
#include "run/pipeline.h"
#include "supervise/handover.h"
#include "supervise/inbox.h"
#include "supervise/worker.h"

namespace millrace::host {

struct SuperviseOptions {
  /// The pipeline file; read anew for every new configuration.
  std::filesystem::path file;
  /// The arguments of the processes that check it and run it.
  std::vector<std::string> check_arguments;
  std::vector<std::string> run_arguments;
  std::chrono::milliseconds drain{30000};
  std::chrono::milliseconds blocked{10000};  ///< see RunOptions
  std::filesystem::path data_folder;
  std::string pipeline;    ///< its name, for the health
  Admin* admin = nullptr;  ///< answers for the supervisor and the pipeline's process; outlives it
};

/// Runs a pipeline file that names a config provider: watches the provider, checks each new
/// configuration in a process of its own, and runs the pipeline in another, which it ends and
/// starts anew for a configuration that is good. A bad one leaves the pipeline as it is. A pipeline
/// that ends by itself with an error is started again, later each time. One whose value `paused` is
/// true runs no pipeline until it changes. Loads no stage plugin and
/// starts no thread but the provider's, so nothing of that kind is carried into a process.
class Supervisor {
 public:
  Supervisor(const Plan::Stage& provider, SuperviseOptions options, Logger& logger);
  Supervisor(const Supervisor&) = delete;
  Supervisor& operator=(const Supervisor&) = delete;
  ~Supervisor();

  /// Until SIGTERM or SIGINT (then the pipeline's exit code; SIGHUP: the newest configuration and
  /// the pipeline file are read again), or the pipeline has done all there
  /// was to do, or the provider fails. Problems of the provider's options go to `report`.
  [[nodiscard]] Exit run(Report& report);

 private:
  using Time = std::chrono::steady_clock::time_point;

  [[nodiscard]] bool open(Report& report);
  void watch(const std::stop_token& stop);
  [[nodiscard]] Exit loop();
  void wait_for_news();
  void take_signals();
  void take_news();

  /// `again`: also if nothing has changed.
  void begin_trial(ConfigValues values, bool again = false);
  void reload();
  void pause(std::uint64_t generation);
  void poll_trial();
  void refuse(std::uint64_t generation, std::string why);

  void poll_worker();
  void worker_ended(const ProcessEnd& end);
  void start_worker();
  void stop_worker();
  void restart_later();
  void tell_status();
  /// Leaves for --admin how things stand.
  void publish();
  [[nodiscard]] Health health() const;

  const Plan::Stage& plan_;
  const SuperviseOptions options_;
  Logger& logger_;
  Surroundings surroundings_;
  Account account_;
  HostContext context_;
  std::unique_ptr<ConfigProvider> provider_;
  Inbox inbox_;
  sigset_t mask_before_{};  ///< what processes get
  int signals_ = -1;

  ConfigStatus status_;
  std::unique_ptr<Worker> trial_;
  Time trial_until_{};
  std::unique_ptr<Worker> worker_;
  Time worker_since_{};
  std::optional<Time> kill_at_;   ///< set while the worker is being stopped
  std::optional<Handover> next_;  ///< to be started, when there is no worker, at `start_at_`
  Time start_at_{};
  std::optional<ConfigValues> newest_;                     ///< that could be read
  Time waiting_since_ = std::chrono::steady_clock::now();  ///< there has been no process since
  Time refused_since_{};                                   ///< `status_` is not ok since
  struct Published {
    std::mutex mutex;
    Admin::Readiness health;
    std::string metrics;
  };
  /// The server's thread may ask while this goes away.
  const std::shared_ptr<Published> published_ = std::make_shared<Published>();
  std::optional<Handover> wanted_;  ///< the last that was found good
  std::optional<Handover> good_;    ///< the last that came up
  int failures_ = 0;                ///< ends in a row that nobody asked for
  std::minstd_rand random_{std::random_device{}()};
  bool paused_ = false;  ///< the newest good configuration says so
  bool provider_failed_ = false;
  bool ending_ = false;  ///< a signal, or the provider's failure, asked for the end
  std::optional<Exit> exit_;
};

}  // namespace millrace::host
