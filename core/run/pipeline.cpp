#include "run/pipeline.h"

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <system_error>
#include <thread>

#include <fmt/format.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "plugin/thrown.h"

namespace millrace::host {

namespace {

sigset_t ending_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&set, signal);
  return set;
}

const char* name_of(std::uint32_t signal) {
  return signal == SIGTERM ? "SIGTERM" : signal == SIGHUP ? "SIGHUP" : "SIGINT";
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {
    if (fd_ < 0) throw std::system_error(errno, std::generic_category(), "descriptor for signals");
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() { ::close(fd_); }
  [[nodiscard]] int get() const { return fd_; }

 private:
  int fd_;
};

/// Whether a stage writes to standard output, which is what a path of "-" means in every plugin.
bool prints(const Plan& plan) {
  return std::ranges::any_of(plan.stages, [](const Plan::Stage& stage) {
    return stage.kind == StageKind::sink &&
           std::ranges::any_of(stage.entries, [](const ConfigEntry& entry) {
             return entry.value.text() != nullptr && *entry.value.text() == "-";
           });
  });
}

void name_thread(const std::string& stage) {
  // The kernel keeps 15 characters.
  pthread_setname_np(pthread_self(), stage.substr(0, 15).c_str());
}

}  // namespace

Pipeline::Pipeline(const Plan& plan, const RunOptions& options, Logger& logger)
    : plan_(plan),
      options_(options),
      logger_(logger),
      progress_(logger.on_terminal() && !(::isatty(STDOUT_FILENO) != 0 && prints(plan))),
      state_(logger, options.data_folder, options.blocked) {
  for (const Plan::Stage& stage : plan.stages) {
    runners_.push_back(std::make_unique<StageRunner>(stage, state_));
  }
  state_.surroundings.not_ready = [this] { return health().why(); };
  if (options_.admin != nullptr) {
    options_.admin->answer({[this] { return health().readiness(); },
                            [this] { return metrics_text(runners_, health().ready()); }});
  }
}

Pipeline::~Pipeline() {
  if (options_.admin != nullptr) {
    options_.admin->answer({[last = health().readiness()] { return last; },
                            [last = metrics_text(runners_, health().ready())] { return last; }});
  }
  for (const auto& runner : runners_) runner->close();
}

/// Libraries start threads when stages are opened. With the ending signals blocked in all of them a
/// signal cannot end the program past the drain; until there is something to drain, it may.
Exit Pipeline::open(Report& report) {
  const sigset_t set = ending_signals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  const Descriptor signals(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  const Descriptor opened(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  bool good = false;
  std::jthread opener([&] {
    good = open_stages(report);
    ::eventfd_write(opened.get(), 1);
  });
  while (true) {
    pollfd waits[] = {{opened.get(), POLLIN, 0}, {signals.get(), POLLIN, 0}, {line(), 0, 0}};
    constexpr int kPeriod = 1000;
    ::poll(waits, 3, options_.control ? kPeriod : -1);
    if (options_.control) options_.control->health(health().json());
    signalfd_siginfo info{};
    if (::read(signals.get(), &info, sizeof info) == sizeof info || waits[2].revents != 0) {
      logger_.log(LogLevel::info, {}, "asked to end before the pipeline had begun");
      ::_exit(static_cast<int>(info.ssi_signo == SIGINT ? Exit::interrupted : Exit::done));
    }
    if (waits[0].revents == 0) continue;
    opener.join();
    break;
  }
  if (!report.empty()) return Exit::usage;
  if (!good) return Exit::failed;
  options_.privileges.drop_in_this_thread();
  connect();
  return Exit::done;
}

bool Pipeline::open_stages(Report& report) {
  bool good = true;
  // In a thread of its own, so that what libraries start here has no rights either.
  std::jthread([&] {
    try {
      options_.privileges.drop_in_this_thread();
    } catch (const std::exception& error) {
      logger_.log(LogLevel::error, {}, error.what());
      good = false;
      return;
    }
    for (auto runner = runners_.rbegin(); runner != runners_.rend(); ++runner) {
      if ((*runner)->plan().kind == StageKind::source) continue;
      good = open_stage(**runner, report) && good;
    }
  }).join();
  for (auto runner = runners_.rbegin(); runner != runners_.rend(); ++runner) {
    if ((*runner)->plan().kind == StageKind::source) good = open_stage(**runner, report) && good;
  }
  return good;
}

bool Pipeline::open_stage(StageRunner& runner, Report& report) {
  const Plan::Stage& stage = runner.plan();
  std::string what;
  enter({.opening = stage.name});
  try {
    runner.open();
    return true;
  } catch (const ConfigError& error) {
    report.add(stage.option_at(error.option()), error.what());
    return false;
  } catch (...) {
    what = fmt::format("cannot start: {}", thrown_text());
  }
  logger_.log(LogLevel::error, stage.name, what);
  if (options_.control) options_.control->error(fmt::format("{}: {}", stage.name, what));
  return false;
}

void Pipeline::connect() {
  for (const auto& runner : runners_) {
    bool upstream_has_workers = false;
    for (const std::size_t from : runner->plan().from) {
      upstream_has_workers = upstream_has_workers || runners_[from]->workers() > 1;
    }
    runner->make_queue(upstream_has_workers);
    for (const std::size_t from : runner->plan().from) {
      for (const Plan::Edge& edge : plan_.stages[from].to) {
        if (runners_[edge.to] == runner) runner->attach_to(*runners_[from], edge.adapter);
      }
    }
  }
}

Exit Pipeline::run() {
  const Descriptor ended(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  ended_fd_ = ended.get();
  started_ = std::chrono::steady_clock::now();

  enter({.status = Health::kRunning});
  std::vector<std::jthread> threads;
  const auto start = [&](StageRunner& runner, auto body) {
    ++threads_left_;
    threads.emplace_back([this, &runner, body] {
      name_thread(runner.plan().name);
      body(runner);
      if (threads_left_.fetch_sub(1) == 1) ::eventfd_write(ended_fd_, 1);
    });
  };
  ++threads_left_;  // nothing has ended before everything has begun
  for (const auto& runner : runners_) {
    if (runner->has_queue()) {
      for (std::size_t worker = 0; worker < runner->workers(); ++worker) {
        start(*runner, [worker](StageRunner& self) { self.run_worker(worker); });
      }
    }
  }
  for (const auto& runner : runners_) {
    if (runner->plan().kind == StageKind::source) {
      start(*runner, [](StageRunner& self) { self.run_source(); });
    }
  }
  if (threads_left_.fetch_sub(1) == 1) ::eventfd_write(ended_fd_, 1);
  wait_for_end();
  threads.clear();
  logger_.progress({});
  for (auto runner = runners_.rbegin(); runner != runners_.rend(); ++runner) (*runner)->close();

  return conclude();
}

void Pipeline::enter(Phase phase) {
  const std::lock_guard lock(phase_mutex_);
  phase_ = std::move(phase);
}

Health Pipeline::health() const {
  Health health{.pipeline = plan_.name};
  {
    const std::lock_guard lock(phase_mutex_);
    health.status = phase_.status;
    if (phase_.status == Health::kStarting) {
      health.reasons.push_back({.stage = phase_.opening,
                                .what = phase_.opening.empty() ? "starting" : "is being opened",
                                .since = phase_.since});
    }
  }
  if (state_.stop.stop_requested()) health.status = Health::kDraining;
  if (state_.stopping) health.status = Health::kFailed;
  for (const auto& runner : runners_) runner->add_troubles(health);
  return health;
}

void Pipeline::wait_for_end() {
  const sigset_t set = ending_signals();
  const Descriptor signals(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  bool draining = false;
  bool alone = false;  // the supervisor has gone away
  auto deadline = std::chrono::steady_clock::time_point::max();
  while (true) {
    tell_supervisor();
    pollfd waits[] = {
        {ended_fd_, POLLIN, 0}, {signals.get(), POLLIN, 0}, {alone ? -1 : line(), 0, 0}};
    int patience = static_cast<int>(BusySampler::kPeriod.count());
    if (draining) {
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
          deadline - std::chrono::steady_clock::now());
      if (left.count() <= 0) {
        force_end(fmt::format("not drained within {} s",
                              static_cast<double>(options_.drain.count()) / 1000));
      }
      patience = static_cast<int>(std::min<std::int64_t>(left.count() + 1, patience));
    }
    ::poll(waits, 3, patience);
    state_.sampler.look();
    if (waits[0].revents != 0) return tell_supervisor(true);
    const auto drain = [&](const char* why) {
      asked_to_end_ = !state_.stopping;
      draining = true;
      deadline = std::chrono::steady_clock::now() + options_.drain;
      state_.stop.request_stop();
      // Said when it is true: whoever reads it may ask for the health.
      logger_.log(LogLevel::info, {}, fmt::format("{}: stopping the sources and draining", why));
    };
    signalfd_siginfo info{};
    while (::read(signals.get(), &info, sizeof info) == sizeof info) {
      if (draining) force_end("a second signal");
      drain(name_of(info.ssi_signo));
    }
    if (waits[2].revents != 0) {
      alone = true;
      if (!draining) drain("the supervisor is gone");
    }
    if (!draining && state_.failed && state_.stop.stop_requested()) {
      // A stage failed: what can be drained is, but not for ever.
      draining = true;
      deadline = std::chrono::steady_clock::now() + options_.drain;
    }
    show_progress();
  }
}

void Pipeline::tell_supervisor(bool now) {
  constexpr std::chrono::seconds kPeriod{2};
  if (!options_.control) return;
  const auto time = std::chrono::steady_clock::now();
  if (!now && time - told_ < kPeriod) return;
  told_ = time;
  options_.control->counts(summary_json(runners_));
  const Health current = health();
  options_.control->health(current.json());
  options_.control->metrics(metrics_text(runners_, current.ready()));
}

void Pipeline::show_progress() {
  constexpr std::chrono::milliseconds kPeriod{200};
  const auto time = std::chrono::steady_clock::now();
  if (!progress_ || time - shown_ < kPeriod) return;
  shown_ = time;
  StageRunner::Progress sum;
  bool finite = false;
  std::string counts;
  for (const auto& runner : runners_) {
    if (runner->plan().kind == StageKind::source) {
      sum.done += runner->progress().done;
      sum.total += runner->progress().total;
      finite = finite || runner->progress().total > 0;
    }
    const Account& account = runner->account();
    const bool sink = runner->plan().kind == StageKind::sink;
    counts += fmt::format("{}{} {}", counts.empty() ? "" : "  ", runner->plan().name,
                          sink ? account.in.value() : account.out.value());
  }
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(time - started_);
  const std::string share =
      finite ? fmt::format("{:3}%  ", std::min<std::uint64_t>(100, sum.done * 100 / sum.total))
             : "";
  logger_.progress(fmt::format("{}{} s  {}", share, seconds.count(), counts));
}

void Pipeline::force_end(const std::string& why) {
  // Whatever holds a lock or does not read what we print must not keep this from its end.
  const Exit exit = state_.stopping ? Exit::failed : Exit::forced;
  std::thread([exit] {
    std::this_thread::sleep_for(std::chrono::seconds(2));
    ::_exit(static_cast<int>(exit));
  }).detach();
  const std::string stuck = at_work();
  const std::string what = fmt::format("{}: ending now; still at work: {}", why,
                                       stuck.empty() ? "nothing, data waits in queues" : stuck);
  logger_.progress({});
  logger_.log(LogLevel::error, {}, what);
  if (options_.control) options_.control->error(what);
  if (state_.stopping) report_failure();
  print_summary();
  ::_exit(static_cast<int>(exit));
}

std::string Pipeline::at_work() const {
  std::string names;
  for (const auto& runner : runners_) {
    if (const std::string text = runner->at_work(); !text.empty()) {
      names += (names.empty() ? "" : ", ") + text;
    }
  }
  return names;
}

void Pipeline::print_summary() {
  if (!options_.summary) return;
  logger_.plain(summary_text(runners_));
  logger_.json_line(summary_json(runners_));
}

void Pipeline::report_failure() {
  logger_.log(LogLevel::error, {}, "failed: " + state_.cause());
  if (options_.control) options_.control->error(state_.cause());
}

Exit Pipeline::conclude() {
  Exit exit = Exit::done;
  if (state_.failed) {
    report_failure();
    exit = Exit::failed;
  }
  // A source that stops because a stage has failed was not interrupted by anybody. A sink that
  // fails because the input was interrupted is no failure of its own.
  if (const std::string cut_short = state_.cut_short(); !cut_short.empty() && asked_to_end_) {
    logger_.log(LogLevel::warning, {}, "interrupted: " + cut_short);
    exit = Exit::interrupted;
  }
  for (const auto& runner : runners_) {
    if (const auto lost = runner->account().undelivered.value(); lost != 0) {
      logger_.log(LogLevel::error, runner->plan().name,
                  fmt::format("{} batches were not delivered", lost));
      exit = Exit::failed;
    }
  }
  print_summary();
  for (const std::string& problem : imbalances(runners_)) {
    logger_.log(LogLevel::error, {}, "the books do not balance: " + problem);
    exit = Exit::failed;
  }
  return exit;
}

}  // namespace millrace::host
