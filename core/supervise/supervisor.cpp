#include "supervise/supervisor.h"

#include <algorithm>
#include <cerrno>
#include <exception>
#include <fstream>
#include <sstream>
#include <system_error>
#include <thread>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <poll.h>
#include <pthread.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "millrace/error.h"

#include "plugin/thrown.h"

namespace millrace::host {

namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

/// A check opens no server's connection, so it is over in no time or stuck.
constexpr seconds kTrialTime{30};
/// What a pipeline gets beyond its own drain deadline before it is killed.
constexpr seconds kGrace{5};
/// So often in a row a new configuration may fail to come up before it gives way to an old one.
constexpr int kTries = 3;
/// A pipeline that has run so long starts again without a long pause.
constexpr seconds kStable{60};

sigset_t watched_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGCHLD}) sigaddset(&set, signal);
  return set;
}

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  if (!file || !(text << file.rdbuf())) {
    throw std::runtime_error(fmt::format("cannot read the pipeline file '{}'", path.string()));
  }
  return text.str();
}

/// The value `paused` of a configuration; a column of a database says 0 or 1. Nothing: neither.
std::optional<bool> is_paused(const std::map<std::string, std::string>& values) {
  const auto found = values.find("paused");
  if (found == values.end()) return false;
  const std::string& text = found->second;
  if (text == "true" || text == "1") return true;
  if (text == "false" || text == "0" || text.empty()) return false;
  return std::nullopt;
}

/// The families of the supervisor's own.
std::string supervisor_metrics(bool ready, const ConfigStatus& status,
                               const std::vector<Conditions::State>& conditions) {
  std::string text = fmt::format(
      "# HELP millrace_ready 1 while /health answers 200.\n# TYPE millrace_ready gauge\n"
      "millrace_ready {}\n",
      ready ? 1 : 0);
  const auto gauge = [&text](std::string_view name, std::string_view help, auto value) {
    text += fmt::format("# HELP {0} {1}\n# TYPE {0} gauge\n{0} {2}\n", name, help, value);
  };
  gauge("millrace_config_generation", "Generation of the configuration that runs.", status.applied);
  gauge("millrace_config_newest_generation", "Newest generation of the configuration.",
        status.seen);
  gauge("millrace_config_ok", "0 while the newest configuration cannot be applied.",
        status.ok ? 1 : 0);
  gauge("millrace_restarts", "Restarts of the pipeline that nobody asked for.", status.restarts);
  if (!conditions.empty()) {
    text +=
        "# HELP millrace_config_condition 1 while a condition of the provider holds, by name.\n"
        "# TYPE millrace_config_condition gauge\n";
  }
  for (const auto& [name, holds] : conditions) {
    text += fmt::format("millrace_config_condition{{name=\"{}\"}} {}\n", name, holds ? 1 : 0);
  }
  return text;
}

/// A process's metrics without its own `millrace_ready`, which come first.
std::string_view without_readiness(std::string_view metrics) {
  const std::size_t next = metrics.find("# HELP", 1);
  return metrics.starts_with("# HELP millrace_ready ") && next != std::string_view::npos
             ? metrics.substr(next)
             : metrics;
}

std::string without_line_ends(std::string text) {
  while (text.ends_with('\n')) text.pop_back();
  return text;
}

}  // namespace

Supervisor::Supervisor(const Plan::Stage& provider, SuperviseOptions options, Logger& logger)
    : plan_(provider),
      options_(std::move(options)),
      logger_(logger),
      surroundings_{logger, options_.data_folder},
      context_("config", false, account_, surroundings_) {
  // Before any thread begins: they all leave these to the descriptor.
  const sigset_t set = watched_signals();
  pthread_sigmask(SIG_BLOCK, &set, &mask_before_);
  signals_ = ::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  if (signals_ < 0) throw std::system_error(errno, std::generic_category(), "signalfd");
  publish();
  if (options_.admin != nullptr) {
    options_.admin->answer({[published = published_] {
                              const std::lock_guard lock(published->mutex);
                              return published->health;
                            },
                            [published = published_] {
                              const std::lock_guard lock(published->mutex);
                              return published->metrics;
                            }});
  }
}

Supervisor::~Supervisor() {
  // The signals stay blocked: one in the last moment does not change the exit code.
  ::close(signals_);
}

Exit Supervisor::run(Report& report) {
  if (!open(report)) return report.empty() ? Exit::failed : Exit::usage;
  Exit exit = Exit::failed;
  {
    std::jthread watcher([this](const std::stop_token& stop) { watch(stop); });
    exit = loop();
    trial_.reset();
  }
  status_.pid = 0;
  tell_status();
  provider_->close();
  return exit;
}

bool Supervisor::open(Report& report) {
  try {
    provider_ = plan_.descriptor->create_provider(plan_.options.get());
    provider_->open(context_);
    return true;
  } catch (const ConfigError& error) {
    report.add(plan_.option_at(error.option()), error.what());
  } catch (...) {
    logger_.log(LogLevel::error, "config",
                fmt::format("{} cannot start: {}", plan_.use, thrown_text()));
  }
  return false;
}

void Supervisor::watch(const std::stop_token& stop) {
  pthread_setname_np(pthread_self(), "config");
  try {
    provider_->run(inbox_, stop);
    if (!stop.stop_requested()) inbox_.failed("it ended by itself");
  } catch (...) {
    inbox_.failed(thrown_text());
  }
}

Exit Supervisor::loop() {
  while (!exit_) {
    wait_for_news();
    take_signals();
    take_news();
    if (trial_) poll_trial();
    if (worker_) poll_worker();
    if (ending_ && !worker_ && !exit_) exit_ = provider_failed_ ? Exit::failed : Exit::done;
    if (!exit_ && !worker_ && next_ && steady_clock::now() >= start_at_) start_worker();
    publish();
  }
  return *exit_;
}

void Supervisor::wait_for_news() {
  std::vector<pollfd> waits{{signals_, POLLIN, 0}, {inbox_.descriptor(), POLLIN, 0}};
  if (trial_) waits.push_back({trial_->descriptor(), POLLIN, 0});
  if (worker_) waits.push_back({worker_->descriptor(), POLLIN, 0});
  std::optional<Time> until;
  const auto consider = [&until](Time time) { until = until ? std::min(*until, time) : time; };
  if (trial_) consider(trial_until_);
  if (kill_at_) consider(*kill_at_);
  if (!worker_ && next_) consider(start_at_);
  // What fails gets older, see --blocked.
  int patience = options_.admin != nullptr ? 1000 : -1;
  if (until) {
    const auto left = std::chrono::ceil<milliseconds>(*until - steady_clock::now());
    patience = static_cast<int>(
        std::clamp<std::int64_t>(left.count(), 0, options_.admin != nullptr ? patience : 60000));
  }
  ::poll(waits.data(), waits.size(), patience);
}

void Supervisor::take_signals() {
  signalfd_siginfo info{};
  while (::read(signals_, &info, sizeof info) == sizeof info) {
    if (info.ssi_signo == SIGCHLD) continue;
    if (info.ssi_signo == SIGHUP) {
      reload();
      continue;
    }
    const char* name = info.ssi_signo == SIGTERM ? "SIGTERM" : "SIGINT";
    next_.reset();
    trial_.reset();
    if (!ending_ || !worker_) {
      ending_ = true;
      logger_.log(LogLevel::info, {}, fmt::format("{}: ending the pipeline", name));
      if (worker_ && !kill_at_) stop_worker();
    } else {
      // The pipeline ends at once with its second signal.
      worker_->process().send(SIGTERM);
    }
  }
}

void Supervisor::take_news() {
  Inbox::News news = inbox_.take();
  if (news.failure) {
    logger_.log(LogLevel::error, "config", "failed: " + *news.failure);
    status_.ok = false;
    status_.error = *news.failure;
    provider_failed_ = true;
    ending_ = true;
    next_.reset();
    trial_.reset();
    if (worker_ && !kill_at_) stop_worker();
  }
  if (ending_) return;
  if (news.unreadable) {
    trial_.reset();
    refuse(news.unreadable->generation, news.unreadable->why);
  }
  if (news.values) {
    newest_ = *news.values;
    begin_trial(std::move(*news.values));
  }
}

void Supervisor::reload() {
  if (ending_) return;
  if (!newest_) {
    logger_.log(LogLevel::info, {}, "SIGHUP: there is no configuration yet");
    return;
  }
  logger_.log(LogLevel::info, {}, "SIGHUP: reading the pipeline file again");
  begin_trial(*newest_, true);
}

void Supervisor::begin_trial(ConfigValues values, bool again) {
  status_.seen = values.generation;
  trial_.reset();
  const std::optional<bool> paused = is_paused(values.values);
  if (!paused) {
    return refuse(values.generation, fmt::format("'paused' is \"{}\"; expected true or false",
                                                 values.values.at("paused")));
  }
  if (*paused) return pause(values.generation);
  try {
    Handover handover{read_file(options_.file), std::move(values)};
    const Handover* current = next_                 ? &*next_
                              : worker_ && !paused_ ? &worker_->handover()
                                                    : nullptr;
    if (!again && current != nullptr && current->pipeline == handover.pipeline &&
        current->config.values == handover.config.values) {
      logger_.log(
          LogLevel::info, "config",
          fmt::format("generation {} has the values that are in use", handover.config.generation));
      if (worker_ && worker_->is_up()) status_.applied = handover.config.generation;
      if (next_) next_->config.generation = handover.config.generation;
      status_.ok = true;
      status_.error.clear();
      return tell_status();
    }
    trial_ = std::make_unique<Worker>(Worker::Task::check, options_.check_arguments,
                                      std::move(handover), mask_before_);
    trial_until_ = steady_clock::now() + kTrialTime;
  } catch (const std::exception& error) {
    refuse(status_.seen, error.what());
  }
}

/// The other values are not looked at before they are needed.
void Supervisor::pause(std::uint64_t generation) {
  next_.reset();
  paused_ = true;
  status_.applied = generation;
  status_.ok = true;
  status_.error.clear();
  logger_.log(LogLevel::info, "config",
              fmt::format("generation {} pauses the pipeline{}", generation,
                          worker_ ? ": draining it" : ""));
  if (worker_ && !kill_at_) stop_worker();
  tell_status();
}

void Supervisor::poll_trial() {
  const auto end = trial_->process().end();
  trial_->listen();
  if (!end) {
    if (steady_clock::now() < trial_until_) return;
    const std::uint64_t generation = trial_->handover().config.generation;
    trial_.reset();
    return refuse(generation, fmt::format("checking it took more than {} s", kTrialTime.count()));
  }
  const std::unique_ptr<Worker> trial = std::move(trial_);
  const std::uint64_t generation = trial->handover().config.generation;
  if (!end->exited_with(static_cast<int>(Exit::done))) {
    std::string why = without_line_ends(trial->errors());
    if (why.empty()) why = fmt::format("checking it ended with {}", end->text());
    return refuse(generation, std::move(why));
  }
  logger_.log(LogLevel::info, "config",
              fmt::format("generation {} is good; {} the pipeline with it", generation,
                          worker_ ? "restarting" : "starting"));
  next_ = wanted_ = trial->handover();
  paused_ = false;
  start_at_ = steady_clock::now();
  failures_ = 0;
  if (worker_ && !kill_at_) stop_worker();
}

/// Says so, and leaves the pipeline as it is.
void Supervisor::refuse(std::uint64_t generation, std::string why) {
  logger_.log(LogLevel::error, "config",
              fmt::format("generation {} cannot be applied{}:\n{}", generation,
                          worker_ ? ", the pipeline goes on as before" : "", why));
  status_.seen = generation;
  status_.ok = false;
  status_.error = std::move(why);
  refused_since_ = steady_clock::now();
  tell_status();
}

void Supervisor::start_worker() {
  try {
    worker_ = std::make_unique<Worker>(Worker::Task::run, options_.run_arguments,
                                       *std::exchange(next_, std::nullopt), mask_before_);
  } catch (const std::exception& error) {
    logger_.log(LogLevel::error, {}, error.what());
    exit_ = Exit::failed;
    return;
  }
  worker_since_ = steady_clock::now();
  kill_at_.reset();
  status_.pid = worker_->process().pid();
  tell_status();
}

void Supervisor::stop_worker() {
  worker_->process().send(SIGTERM);
  kill_at_ = steady_clock::now() + options_.drain + kGrace;
}

void Supervisor::poll_worker() {
  const auto end = worker_->process().end();
  const bool was_up = worker_->is_up();
  if (worker_->listen()) {
    if (!was_up && worker_->is_up() && !paused_) {
      const ConfigValues& config = worker_->handover().config;
      status_.applied = config.generation;
      if (status_.applied == status_.seen) {
        status_.ok = true;
        status_.error.clear();
      }
      good_ = worker_->handover();
      logger_.log(LogLevel::info, "config",
                  fmt::format("the pipeline runs with generation {}", config.generation));
    }
    status_.counters = worker_->counts();
    if (!end) tell_status();
  }
  if (end) return worker_ended(*end);
  if (kill_at_ && steady_clock::now() >= *kill_at_) {
    logger_.log(LogLevel::error, {}, "the pipeline does not end in time: killing it");
    worker_->process().send(SIGKILL);
    kill_at_ = steady_clock::now() + kGrace;
  }
}

void Supervisor::worker_ended(const ProcessEnd& end) {
  const std::unique_ptr<Worker> worker = std::move(worker_);
  waiting_since_ = steady_clock::now();
  const bool asked = kill_at_.has_value();
  kill_at_.reset();
  status_.pid = 0;
  if (ending_) {
    const bool failed = provider_failed_ || end.signal != 0;
    exit_ = failed ? Exit::failed : static_cast<Exit>(end.exit_code);
    return;
  }
  if (asked) {
    if (!end.exited_with(0) && !end.exited_with(static_cast<int>(Exit::interrupted))) {
      logger_.log(LogLevel::warning, {},
                  fmt::format("the pipeline ended with {} {}", end.text(),
                              paused_ ? "as it was paused" : "for its restart"));
    }
    if (paused_) {
      logger_.log(LogLevel::info, "config", "the pipeline is paused");
      tell_status();
    }
    return;
  }
  if (end.exited_with(0)) {
    logger_.log(LogLevel::info, {}, "the pipeline has done its work");
    exit_ = Exit::done;
    return;
  }
  std::string why = fmt::format("the pipeline ended with {}", end.text());
  if (!worker->errors().empty()) why += ":\n" + without_line_ends(worker->errors());
  status_.ok = false;
  status_.error = why;
  refused_since_ = steady_clock::now();
  ++status_.restarts;
  next_ = worker->handover();
  if (steady_clock::now() - worker_since_ >= kStable) failures_ = 0;
  logger_.log(LogLevel::error, {}, why);
  const bool unfit = !worker->is_up() &&
                     (end.exited_with(static_cast<int>(Exit::usage)) || failures_ + 1 >= kTries);
  if (unfit && good_ && good_->config.generation != next_->config.generation) {
    next_ = good_;
    failures_ = 0;
    start_at_ = steady_clock::now();
    logger_.log(LogLevel::info, {},
                fmt::format("going back to generation {}", good_->config.generation));
  } else {
    if (unfit && wanted_) next_ = wanted_;
    restart_later();
  }
  tell_status();
}

/// Full jitter, as many agents may have lost the same thing at once; but not at once again.
void Supervisor::restart_later() {
  constexpr int kFirstBound = 1000;
  constexpr int kLastBound = 30000;
  const int bound = std::min(kLastBound, kFirstBound << std::min(failures_++, 10));
  const milliseconds pause(std::uniform_int_distribution(bound / 2, bound)(random_));
  start_at_ = steady_clock::now() + pause;
  logger_.log(LogLevel::info, {},
              fmt::format("starting the pipeline again in {} ms", pause.count()));
}

Health Supervisor::health() const {
  const auto now = steady_clock::now();
  const auto config = [](std::string what, Time since) {
    return Trouble{.stage = "config", .what = std::move(what), .since = since, .at_once = true};
  };
  Health health{.pipeline = options_.pipeline};
  if (ending_) {
    health.status = Health::kDraining;
  } else if (worker_ && !kill_at_) {
    const auto told = nlohmann::json::parse(worker_->health(), nullptr, false);
    if (told.is_object()) {
      health.status = told.value("status", std::string(Health::kStarting));
      for (const auto& [name, list] :
           {std::pair{"reasons", &health.reasons}, std::pair{"degraded", &health.degraded}}) {
        for (const auto& one : told.value(name, nlohmann::json::array())) {
          list->push_back({.stage = one.value("stage", std::string()),
                           .what = one.value("what", std::string()),
                           .since = now - seconds(one.value("seconds", std::int64_t{0})),
                           .tolerated = !one.value("required", true)});
        }
      }
    } else {
      health.reasons.push_back(config("the pipeline's process starts", worker_since_));
    }
    // It reports every 2 s.
    if (now - worker_->heard() >= std::max<milliseconds>(options_.blocked, seconds(5))) {
      health.reasons.push_back(
          config("the pipeline's process has reported nothing since", worker_->heard()));
    }
  } else if (paused_) {
    health.status = Health::kPaused;
  } else if (worker_) {
    health.reasons.push_back(config("the pipeline ends for its restart", worker_since_));
  } else if (next_) {
    health.reasons.push_back(config("the pipeline is started again", waiting_since_));
  } else {
    health.reasons.push_back(config("waiting for a configuration", waiting_since_));
  }
  if (!status_.ok) {
    health.reasons.push_back(config(
        status_.seen == status_.applied
            ? status_.error
            : fmt::format("generation {} cannot be applied: {}", status_.seen, status_.error),
        refused_since_));
  }
  for (const Conditions::Failing& failing : account_.conditions.failing()) {
    health.add({.stage = "config",
                .what = fmt::format("{}: {}", failing.name, failing.why),
                .since = failing.since,
                .at_once = failing.at_once},
               options_.blocked);
  }
  return health;
}

void Supervisor::publish() {
  if (options_.admin == nullptr) return;
  const Health now = health();
  const bool ready = now.ready();
  std::string metrics = supervisor_metrics(ready, status_, account_.conditions.states());
  // The process knows nothing of its configuration's fate: its own word on being ready is left out.
  if (worker_) metrics += without_readiness(worker_->metrics());
  const std::lock_guard lock(published_->mutex);
  published_->health = {
      ready, now.json(fmt::format(R"("applied":{},"newest":{},"restarts":{})", status_.applied,
                                  status_.seen, status_.restarts))};
  published_->metrics = std::move(metrics);
}

void Supervisor::tell_status() {
  try {
    provider_->report(status_);
  } catch (...) {
    logger_.log(LogLevel::warning, "config", fmt::format("no status was told: {}", thrown_text()));
  }
}

}  // namespace millrace::host
