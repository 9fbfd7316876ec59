#include "testfile/test_run.h"

#include <condition_variable>
#include <csignal>
#include <fstream>
#include <mutex>
#include <sstream>
#include <thread>

#include <fmt/format.h>
#include <pthread.h>

namespace millrace::host {

namespace {

std::string read_all(const std::filesystem::path& path) {
  std::stringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return std::move(text).str();
}

std::string seconds(Duration duration) {
  return fmt::format("{:g} s", std::chrono::duration<double>(duration).count());
}

/// Looks after the time that a test may take, on a thread of its own.
class Watchdog {
 public:
  Watchdog(const Test& test, const Pipeline& pipeline, const TestRunOptions& options) {
    if (!options.on_timeout) return;
    // A signal is for the pipeline.
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    thread_ = std::jthread([this, &test, &pipeline, &options](const std::stop_token& stop) {
      std::unique_lock lock(mutex_);
      if (ended_.wait_for(lock, stop, test.timeout, [&] { return stop.stop_requested(); })) return;
      if (stop.stop_requested()) return;
      TestResult result;
      result.fail(fmt::format("not done within {} (timeout); still at work: {}\n",
                              seconds(test.timeout), busy_stages(pipeline)));
      options.on_timeout(result);
    });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

 private:
  static std::string busy_stages(const Pipeline& pipeline) {
    const std::string names = pipeline.at_work();
    return names.empty() ? "no stage; it is still being opened, or waits" : names;
  }

  std::mutex mutex_;
  std::condition_variable_any ended_;
  std::jthread thread_;
};

/// Ends a run that has to fail: is the text in what was said?
void check_failure(const Test& test, bool failed, const std::string& said, TestResult& result) {
  if (!test.fails) {
    if (failed) result.fail(fmt::format("the pipeline failed\n{}", said));
    return;
  }
  if (!failed) {
    result.fail(fmt::format("the pipeline ended well\n- it fails with \"{}\"\n", *test.fails));
  } else if (said.find(*test.fails) == std::string::npos) {
    result.fail(fmt::format("the pipeline failed in another way\n- {}\n+ {}\n", *test.fails,
                            said.empty() ? "nothing was said" : said));
  }
}

/// The errors among the lines of a log.
std::string errors_in(const std::string& log) {
  std::string errors;
  std::stringstream lines(log);
  for (std::string line; std::getline(lines, line);) {
    if (line.find("error: ") != std::string::npos) errors += line + '\n';
  }
  return errors;
}

}  // namespace

std::string to_json_text(const TestResult& result) {
  return Json({{"outcome", static_cast<int>(result.outcome)},
               {"problems", result.problems},
               {"reason", result.reason}})
      .dump(-1, ' ', false, Json::error_handler_t::replace);
}

TestResult from_json_text(const std::string& text) {
  const Json json = Json::parse(text);
  TestResult result;
  result.outcome = static_cast<TestResult::Outcome>(json.at("outcome").get<int>());
  json.at("problems").get_to(result.problems);
  json.at("reason").get_to(result.reason);
  return result;
}

TestResult run_test(const TestFile& file, const Test& test, const TestPlan& plan,
                    const Report& report, const TestRunOptions& options, Logger& logger) {
  TestResult result;
  if (!report.empty()) {
    check_failure(test, true, report.text(), result);
    return result;
  }
  RunOptions run_options;
  run_options.data_folder = options.data_folder;
  run_options.summary = false;
  Pipeline pipeline(plan.plan, run_options, logger);
  const Watchdog watchdog(test, pipeline, options);
  Report opening = report;
  const Exit opened = pipeline.open(opening);
  if (opened != Exit::done) {
    check_failure(test, true, opening.text() + errors_in(read_all(options.log)), result);
    return result;
  }
  const Exit exit = pipeline.run();
  check_failure(test, exit != Exit::done, errors_in(read_all(options.log)), result);
  check_expectations(file, test, plan, pipeline.stages(), result);
  return result;
}

}  // namespace millrace::host
