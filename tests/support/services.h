#pragma once

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

namespace millrace::testing {

/// Real servers for a test, started by tests/services in a folder of their own that goes away with
/// this object; they are killed if the test's process ends without that. A GoogleTest suite makes
/// it once, as starting takes seconds:
///
///   static void SetUpTestSuite() { services = std::make_unique<Services>(Names{"redis"}); }
///   static void TearDownTestSuite() { services.reset(); }
///   void SetUp() override {
///     if (!services->missing().empty()) GTEST_SKIP() << services->missing();
///   }
///
/// Everything throws std::runtime_error with the script's output if it does not work.
class Services {
 public:
  using Names = std::vector<std::string>;

  /// Starts "mariadb", "mysql", "postgres", "rabbitmq", "redis", "zookeeper"; an ensemble is
  /// "zookeeper1" to "zookeeper3". `options` are passed on, as in
  /// {"--option", "redis=--appendfsync always"}.
  explicit Services(const Names& names, const Names& options = {}) : folder_(make_folder()) {
    Names words{"--parent", std::to_string(::getpid())};
    words.insert(words.end(), options.begin(), options.end());
    words.insert(words.end(), names.begin(), names.end());
    try {
      constexpr int kSkipped = 77;
      std::string output;
      const int status = run("start", words, output);
      if (status == kSkipped) {
        missing_ = output;
      } else if (status != 0) {
        throw std::runtime_error(output);
      }
    } catch (...) {
      remove();
      throw;
    }
  }
  Services(const Services&) = delete;
  Services& operator=(const Services&) = delete;
  ~Services() { remove(); }

  /// What is not installed, a reason to skip the test; empty if the servers run.
  [[nodiscard]] const std::string& missing() const { return missing_; }
  /// The value of MILLRACE_REDIS and so on: "redis://127.0.0.1:20123".
  [[nodiscard]] std::string address(const std::string& name) const {
    std::string variable = "export MILLRACE_";
    for (const char c : name) variable += static_cast<char>(c >= 'a' ? c - 'a' + 'A' : c);
    variable += '=';
    std::ifstream file(folder_ / "env");
    for (std::string line; std::getline(file, line);) {
      if (line.starts_with(variable)) return line.substr(variable.size());
    }
    throw std::runtime_error("no server '" + name + "' was started");
  }
  [[nodiscard]] std::uint16_t port(const std::string& name) const {
    const std::string text = address(name);
    const std::size_t host = text.find("127.0.0.1:");
    return static_cast<std::uint16_t>(std::stoul(text.substr(host + sizeof("127.0.0.1:") - 1)));
  }
  /// Where the servers have data and logs (NAME.log).
  [[nodiscard]] const std::filesystem::path& folder() const { return folder_; }

  /// SIGKILL; returns when it is gone.
  void kill(const std::string& name) const { command("kill", {name}); }
  /// Lets it end properly.
  void stop(const std::string& name) const { command("stop", {name}); }
  /// After `kill` or `stop`, with the same port and data; returns when it is ready.
  void start(const std::string& name) const { command("start", {name}); }
  /// `stop` and `start`.
  void restart(const std::string& name) const { command("restart", {name}); }
  /// SIGSTOP and SIGCONT: its connections stay, but nothing answers.
  void pause(const std::string& name) const { command("pause", {name}); }
  void resume(const std::string& name) const { command("resume", {name}); }

  /// Calls tests/services; returns what it has printed.
  std::string command(const std::string& verb, const Names& words) const {
    std::string output;
    if (run(verb, words, output) != 0) throw std::runtime_error(output);
    return output;
  }

 private:
  static std::filesystem::path make_folder() {
    std::string pattern = std::filesystem::temp_directory_path() / "millrace-XXXXXX";
    if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("cannot make " + pattern);
    return pattern;
  }

  static std::string quoted(std::string_view word) {
    std::string text = "'";
    for (const char c : word) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
    return text + "'";
  }

  static std::filesystem::path script() {
    if (const char* source = std::getenv("MILLRACE_SOURCE"); source != nullptr) {
      return std::filesystem::path(source) / "tests/services";
    }
    return std::filesystem::path(__FILE__).parent_path().parent_path() / "services";
  }

  int run(const std::string& verb, const Names& words, std::string& output) const {
    std::string line =
        quoted(script().string()) + " " + verb + " --dir " + quoted(folder_.string());
    for (const std::string& word : words) line += " " + quoted(word);
    line += " 2>&1";
    struct Close {
      void operator()(FILE* pipe) const { ::pclose(pipe); }
    };
    std::unique_ptr<FILE, Close> pipe(::popen(line.c_str(), "r"));
    if (!pipe) throw std::runtime_error("cannot run " + line);
    std::array<char, 4096> piece{};
    while (const std::size_t size = std::fread(piece.data(), 1, piece.size(), pipe.get())) {
      output.append(piece.data(), size);
    }
    const int status = ::pclose(pipe.release());
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

  void remove() const noexcept {
    try {
      std::string output;
      run("stop", {}, output);
      std::filesystem::remove_all(folder_);
    } catch (const std::exception& error) {
      std::fprintf(stderr, "%s: %s\n", folder_.c_str(), error.what());
    }
  }

  std::filesystem::path folder_;
  std::string missing_;
};

}  // namespace millrace::testing
