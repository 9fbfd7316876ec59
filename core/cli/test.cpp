#include <csignal>
#include <cstdlib>
#include <iostream>
#include <set>

#include <fmt/format.h>
#include <unistd.h>

#include "cli/arguments.h"
#include "cli/commands.h"
#include "testfile/test_output.h"
#include "testfile/test_process.h"

namespace millrace::host {

namespace {

/// A folder for all tests of a run, removed at the end unless it is to be kept.
class Workspace {
 public:
  explicit Workspace(bool keep) : keep_(keep) {
    std::string path = (std::filesystem::temp_directory_path() / "millrace-test-XXXXXX").string();
    if (::mkdtemp(path.data()) == nullptr) {
      throw std::system_error(errno, std::generic_category(), path);
    }
    path_ = path;
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  ~Workspace() {
    std::error_code ignored;
    if (!keep_) std::filesystem::remove_all(path_, ignored);
  }

  /// What ${TMP} is while a file is looked at and no test runs.
  [[nodiscard]] std::filesystem::path none() const {
    std::filesystem::create_directories(path_ / "0");
    return path_ / "0";
  }
  [[nodiscard]] std::filesystem::path next() { return path_ / std::to_string(++number_); }
  void forget(const std::filesystem::path& folder) const {
    std::error_code ignored;
    if (!keep_) std::filesystem::remove_all(folder, ignored);
  }
  [[nodiscard]] bool keeps() const { return keep_; }

 private:
  std::filesystem::path path_;
  int number_ = 0;
  bool keep_;
};

struct Selected {
  TestFile file;
  std::vector<std::size_t> tests;  ///< positions in the file
};

class Runner {
 public:
  explicit Runner(const po::variables_map& map)
      : map_(map), registry_(registry_from(map)), workspace_(map.count("keep") != 0) {
    surroundings_.given = given_variables(map);
    surroundings_.settings = settings_from(map);
    surroundings_.folder = workspace_.none();
    if (map.count("filter") != 0) filter_ = map["filter"].as<std::string>();
  }

  int run(const std::vector<std::string>& paths) {
    bool good = true;
    std::vector<Selected> files;
    for (const std::string& path : paths) good = look_at(path, files) && good;
    expect_names(paths);
    if (map_.count("list") != 0) {
      list(files);
      return static_cast<int>(good ? Exit::done : Exit::usage);
    }
    if (good && files.empty()) {
      throw UsageError(fmt::format("--filter {}: no test has this in its name", filter_));
    }
    const auto output = make_test_output(map_["format"].as<std::string>(), std::cout);
    if (output == nullptr) throw UsageError("--format: expected text, json or junit");
    TestSignals signals;
    for (const Selected& one : files) {
      for (const std::size_t number : one.tests) {
        if (!signals.interrupted()) run_one(one.file, number, signals, *output);
      }
    }
    if (!files.empty()) output->finish();
    if (!good) return static_cast<int>(Exit::usage);
    return static_cast<int>(output->counts().failed != 0 || signals.interrupted() ? Exit::failed
                                                                                  : Exit::done);
  }

 private:
  /// Reads a file and plans all its tests, so that everything that is wrong is told at once; such a
  /// file is not run.
  bool look_at(const std::string& path, std::vector<Selected>& files) {
    Report report;
    Selected selected{read_test_file(path, surroundings_, report), {}};
    std::set<std::string> told;
    std::string errors = report.text();
    std::size_t count = report.size();
    for (std::size_t i = 0; report.empty() && i < selected.file.tests.size(); ++i) {
      const Test& test = selected.file.tests[i];
      if ((path + ": " + test.name).find(filter_) == std::string::npos) continue;
      selected.tests.push_back(i);
      if (test.fails || !reason_to_skip(test, registry_).empty()) continue;
      Report of_test = report;
      (void)make_test_plan(selected.file, test, registry_, of_test);
      const std::string text = of_test.text();
      if (text.empty() || !told.insert(text).second) continue;
      errors += text;
      count += of_test.size();
    }
    if (count != 0) {
      std::cerr << errors << count_errors(count, path);
      return false;
    }
    if (!selected.tests.empty()) files.push_back(std::move(selected));
    return true;
  }

  /// A --var that is in no test file, nor in a pipeline file that one of them names, is a mistake.
  void expect_names(const std::vector<std::string>& paths) const {
    Report ignored;
    std::string texts;
    for (const std::string& path : paths) {
      const TestFile file = read_test_file(path, surroundings_, ignored);
      texts += file.text;
      for (const Test& test : file.tests) {
        if (test.pipeline.empty()) continue;
        texts += read_file(test.pipeline, "pipeline file", ignored).value_or("");
      }
    }
    for (const auto& [name, value] : surroundings_.given) {
      if (ignored.empty() && texts.find(name) == std::string::npos) {
        throw UsageError(fmt::format(
            "--var {}: neither the test files nor their pipelines have ${{{}}}", name, name));
      }
    }
  }

  static void list(const std::vector<Selected>& files) {
    for (const Selected& one : files) {
      for (const std::size_t number : one.tests) {
        std::cout << fmt::format("{}: {}\n", one.file.path.string(), one.file.tests[number].name);
      }
    }
  }

  void run_one(const TestFile& file, std::size_t number, TestSignals& signals, TestOutput& output) {
    const Test& test = file.tests[number];
    TestResult result;
    result.reason = reason_to_skip(test, registry_);
    if (!result.reason.empty()) {
      result.outcome = TestResult::Outcome::skipped;
      return output.add(file.path.string(), test, result);
    }
    const std::filesystem::path folder = workspace_.next();
    std::vector<std::string> arguments = {
        "test", file.path.string(), "--case", std::to_string(number), "--folder", folder.string()};
    for (const char* name : {"var", "set", "plugins"}) {
      if (map_.count(name) == 0) continue;
      for (const std::string& value : map_[name].as<std::vector<std::string>>()) {
        arguments.push_back(fmt::format("--{}={}", name, value));
      }
    }
    result = run_in_process(arguments, folder, test.timeout, signals);
    if (workspace_.keeps()) result.folder = folder.string();
    workspace_.forget(folder);
    output.add(file.path.string(), test, result);
  }

  const po::variables_map& map_;
  Registry registry_;
  Workspace workspace_;
  TestSurroundings surroundings_;
  std::string filter_;
};

/// One test, in the process that run_in_process has started for it.
int run_case(const po::variables_map& map) {
  const std::filesystem::path folder = map["folder"].as<std::string>();
  become_test_process(folder);
  std::signal(SIGPIPE, SIG_IGN);
  Report report;
  const TestFile file = read_test_file(map["file"].as<std::vector<std::string>>().front(),
                                       {given_variables(map), settings_from(map), folder}, report);
  const Test& test = file.tests.at(map["case"].as<std::size_t>());
  Registry registry = registry_from(map);
  const TestPlan plan = make_test_plan(file, test, registry, report);
  Logger logger(LogFormat::text, LogLevel::info);
  TestRunOptions options;
  options.data_folder = data_folder();
  options.log = log_of(folder);
  options.on_timeout = [&](const TestResult& result) {
    report_result(folder, result);
    ::_exit(0);
  };
  report_result(folder, run_test(file, test, plan, report, options, logger));
  return 0;
}

}  // namespace

int test_command(const std::vector<std::string>& arguments) {
  po::options_description options("millrace test FILE...");
  options.add_options()                                            //
      ("help,h", "show this")                                      //
      ("filter", po::value<std::string>()->value_name("TEXT"),     //
       "only tests with this text in \"FILE: NAME\"")              //
      ("list", "list the tests, run none")                         //
      ("format", po::value<std::string>()->default_value("text"),  //
       "text, json (an object a line) or junit (XML)")             //
      ("keep", "keep what the pipelines wrote into ${TMP}, and say where it lies");
  options.add(file_options());
  po::options_description hidden;
  hidden.add_options()("case", po::value<std::size_t>())("folder", po::value<std::string>());
  const po::variables_map map = parse(arguments, options, "file", hidden);
  if (map.count("help") != 0) {
    std::cout << options;
    return 0;
  }
  if (map.count("file") == 0) throw UsageError("millrace test takes test files");
  if (map.count("case") != 0) return run_case(map);
  return Runner(map).run(map["file"].as<std::vector<std::string>>());
}

}  // namespace millrace::host
