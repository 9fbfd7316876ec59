#include <csignal>
#include <iostream>

#include <fmt/format.h>
#include <malloc.h>

#include "millrace/abi.h"

#include "cli/arguments.h"
#include "cli/commands.h"
#include "run/pipeline.h"
#include "supervise/supervisor.h"

namespace millrace::host {

namespace {

constexpr std::string_view kExitCodes = R"(
Exit codes: 0 done, or a live source was drained after a signal; 1 failed while running; 2 usage or
configuration; 3 a deadline or a second signal forced the end; 130 interrupted by a signal before the
end of a finite input.
)";

Logger make_logger(const po::variables_map& map) {
  const auto& format = map["log-format"].as<std::string>();
  const auto& level = map["log-level"].as<std::string>();
  static const std::map<std::string, LogLevel> kLevels = {{"debug", LogLevel::debug},
                                                          {"info", LogLevel::info},
                                                          {"warning", LogLevel::warning},
                                                          {"error", LogLevel::error}};
  if (format != "text" && format != "json") {
    throw UsageError(fmt::format("--log-format {}: expected text or json", format));
  }
  if (!kLevels.contains(level)) {
    throw UsageError(fmt::format("--log-level {}: expected debug, info, warning or error", level));
  }
  return Logger(format == "json" ? LogFormat::json : LogFormat::text, kLevels.at(level));
}

/// A report for people, or a log line for each error and warning.
void tell(const Report& report, const std::string& file, Logger& logger) {
  if (logger.format() == LogFormat::text) {
    logger.plain(report.text());
    if (!report.empty()) logger.plain(count_errors(report.size(), file));
    return;
  }
  const auto log = [&](LogLevel level, const std::vector<Report::Entry>& entries) {
    for (const Report::Entry& entry : entries) {
      std::string message = report.place(entry.at) + ": " + entry.message;
      if (!entry.expected.empty()) message += fmt::format("; expected {}", entry.expected);
      if (!entry.meant.empty()) message += fmt::format("; did you mean '{}'?", entry.meant);
      logger.log(level, {}, message);
    }
  };
  log(LogLevel::error, report.entries());
  log(LogLevel::warning, report.warnings());
}

/// Of a file without errors. Sections of plugins that are not installed are no news at every start,
/// unless one of those that are may have been meant.
void tell_warnings(Report& report, const std::string& file, Logger& logger) {
  report.remove_if([](const Report::Entry& entry) { return entry.meant.empty(); });
  tell(report, file, logger);
  report.remove_if([](const Report::Entry&) { return true; });
}

/// What a process for each configuration would find wrong again and again.
void check_arguments(const po::variables_map& map, const PipelineSpec& spec) {
  if (map.count("stages") != 0) {
    std::vector<std::string> names;
    for (const StageSpec& stage : spec.stages) names.push_back(stage.name);
    const auto& part = map["stages"].as<std::string>();
    if (const auto wrong = check_cut(part, names)) {
      throw UsageError(fmt::format("--stages {}: {}", part, *wrong));
    }
  }
  if (map.count("user") != 0) {
    const auto& user = map["user"].as<std::string>();
    try {
      Privileges::check(user);
    } catch (const std::exception& error) {
      throw UsageError(fmt::format("--user {}: {}", user, error.what()));
    }
  }
}

/// Answers from now on for whatever goes on in this process; null without --admin.
std::unique_ptr<Admin> start_admin(const po::variables_map& map, Logger& logger) {
  if (map.count("admin") == 0) return nullptr;
  const auto& address = map["admin"].as<std::string>();
  const Health starting{
      .reasons = {{.what = "reading the pipeline file", .since = Trouble::Time::clock::now()}}};
  try {
    Admin::check(address);
    auto admin =
        std::make_unique<Admin>(address, Admin::Answers{[starting] { return starting.readiness(); },
                                                        [] { return metrics_text({}, false); }});
    logger.log(LogLevel::info, {}, fmt::format("health and metrics on {}", admin->url()));
    return admin;
  } catch (const std::exception& error) {
    throw UsageError(fmt::format("--admin {}: {}", address, error.what()));
  }
}

/// "millrace 0.1.0: pipeline 'server' (server.toml): receive (source-http), ..."
std::string start_line(const Plan& plan, const std::string& file) {
  std::string stages;
  for (const Plan::Stage& stage : plan.stages) {
    stages += fmt::format("{}{} ({})", stages.empty() ? "" : ", ", stage.name, stage.use);
  }
  const std::string name = plan.name.empty() ? "" : fmt::format(" '{}'", plan.name);
  return fmt::format("millrace {}: pipeline{} ({}): {}", MILLRACE_VERSION, name, file, stages);
}

/// Runs the file in a process of its own for each configuration.
int supervise(const std::vector<std::string>& arguments, const po::variables_map& map,
              const PipelineSpec& spec, const RunOptions& run_options, Logger& logger,
              Report& report) {
  const std::string file = map["file"].as<std::vector<std::string>>().front();
  check_arguments(map, spec);
  Registry registry = registry_from(map);
  const auto provider = make_provider_plan(spec, registry, report);
  if (!report.empty() || !provider) {
    tell(report, file, logger);
    return static_cast<int>(Exit::usage);
  }
  tell_warnings(report, file, logger);
  SuperviseOptions options;
  options.file = file;
  options.drain = run_options.drain;
  options.blocked = run_options.blocked;
  options.pipeline = spec.name;
  options.admin = run_options.admin;
  options.data_folder = run_options.data_folder;
  options.run_arguments = {"run", "--supervised"};
  options.run_arguments.insert(options.run_arguments.end(), arguments.begin(), arguments.end());
  options.check_arguments = {"check", "--supervised", "--probe", file};
  for (const char* name : {"var", "set", "plugins"}) {
    if (map.count(name) == 0) continue;
    for (const std::string& value : map[name].as<std::vector<std::string>>()) {
      options.check_arguments.push_back(fmt::format("--{}={}", name, value));
    }
  }
  if (map.count("stages") != 0) {
    options.check_arguments.push_back("--stages=" + map["stages"].as<std::string>());
  }
  Supervisor supervisor(*provider, std::move(options), logger);
  const Exit exit = supervisor.run(report);
  if (!report.empty()) tell(report, file, logger);
  return static_cast<int>(exit);
}

/// A pipeline asks for the memory of its batches over and over. glibc gives blocks from 128 KiB on
/// back to the kernel in between, and then every page costs a fault: two thirds of the time of
/// splitting where batches are large.
void keep_memory() {
  constexpr int kKept = 64 << 20;
  mallopt(M_MMAP_THRESHOLD, kKept);
  mallopt(M_TRIM_THRESHOLD, kKept);
}

}  // namespace

int run_command(const std::vector<std::string>& arguments) {
  po::options_description options("millrace run FILE");
  po::options_description running("Running");
  running.add_options()                                              //
      ("help,h", "show this")                                        //
      ("drain", po::value<std::string>()->default_value("30s"),      //
       "grace period for draining after SIGINT, SIGTERM or SIGHUP")  //
      ("stages", po::value<std::string>()->value_name("A..B"),       //
       "only a part of the pipeline, cut at queue stages: ..QUEUE what feeds it, QUEUE.. what it "
       "feeds")                                                                     //
      ("admin", po::value<std::string>()->value_name("HOST:PORT"),                  //
       "answer GET /health and GET /metrics (Prometheus) here")                     //
      ("blocked", po::value<std::string>()->default_value("10s"),                   //
       "/health says no (503) after a server has been out of reach for this long")  //
      ("user", po::value<std::string>()->value_name("NAME"),                        //
       "started by root: become this user, and keep CAP_NET_RAW and CAP_NET_ADMIN until the "
       "sources are open")                                                             //
      ("log-format", po::value<std::string>()->default_value("text"), "text or json")  //
      ("log-level", po::value<std::string>()->default_value("info"),                   //
       "debug, info, warning or error")                                                //
      ("no-summary", "leave out the table of counts at the end");
  options.add(running).add(file_options());
  const po::variables_map map = parse(arguments, options, "file", supervised_option());
  if (map.count("help") != 0) {
    std::cout << options << kExitCodes;
    return 0;
  }
  if (map.count("file") == 0 || map["file"].as<std::vector<std::string>>().size() != 1) {
    throw UsageError("millrace run takes one pipeline file");
  }
  const std::string file = map["file"].as<std::vector<std::string>>().front();
  RunOptions run_options;
  run_options.drain = duration_from("drain", map["drain"].as<std::string>());
  run_options.data_folder = data_folder();
  run_options.blocked = duration_from("blocked", map["blocked"].as<std::string>());
  run_options.summary = map.count("no-summary") == 0;
  Logger logger = make_logger(map);
  // A reader of our output that goes away is an error of the stage that writes, not an end by
  // signal.
  std::signal(SIGPIPE, SIG_IGN);

  // A supervisor answers for its pipeline.
  const std::unique_ptr<Admin> admin =
      map.count("supervised") == 0 ? start_admin(map, logger) : nullptr;
  run_options.admin = admin.get();
  Report report;
  if (map.count("supervised") != 0) run_options.control.emplace(Worker::kLine);
  const auto tell_all = [&] {
    tell(report, file, logger);
    if (run_options.control) run_options.control->error(report.text());
    return static_cast<int>(Exit::usage);
  };
  const auto usage_error = [&](std::string what) {
    if (run_options.control) run_options.control->error(what);
    return UsageError(std::move(what));
  };
  const Variables variables = variables_from(map);
  const PipelineSpec spec = read_file_of(map, file, variables, report);
  if (!spec.syntax_errors && !spec.stages.empty()) variables.report_unnamed(file, report);
  if (spec.config && !run_options.control && report.empty()) {
    return supervise(arguments, map, spec, run_options, logger, report);
  }
  Registry registry = registry_from(map);
  Plan plan = make_plan(spec, registry, report);
  if (!report.empty()) return tell_all();
  tell_warnings(report, file, logger);
  if (map.count("stages") != 0) {
    const auto& part = map["stages"].as<std::string>();
    if (const auto wrong = cut(plan, part)) {
      throw usage_error(fmt::format("--stages {}: {}", part, *wrong));
    }
  }
  if (map.count("user") != 0) {
    try {
      run_options.privileges = Privileges(map["user"].as<std::string>());
    } catch (const std::exception& error) {
      throw usage_error(fmt::format("--user {}: {}", map["user"].as<std::string>(), error.what()));
    }
  }
  keep_memory();
  logger.log(LogLevel::info, {}, start_line(plan, file));
  Pipeline pipeline(plan, run_options, logger);
  const Exit opened = pipeline.open(report);
  if (!report.empty()) return tell_all();
  return static_cast<int>(opened == Exit::done ? pipeline.run() : opened);
}

}  // namespace millrace::host
