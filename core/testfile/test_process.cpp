#include "testfile/test_process.h"

#include <cerrno>
#include <fstream>
#include <optional>
#include <sstream>
#include <system_error>

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "supervise/process.h"

namespace millrace::host {

namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

/// Beside ${TMP}, so that a test does not find it there.
std::filesystem::path result_of(const std::filesystem::path& folder) {
  return folder.string() + ".result";
}

std::string last_lines(const std::filesystem::path& path) {
  constexpr std::size_t kMost = 30;
  std::vector<std::string> lines;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  std::string text;
  const std::size_t first = lines.size() > kMost ? lines.size() - kMost : 0;
  for (std::size_t i = first; i < lines.size(); ++i) text += lines[i] + '\n';
  return text;
}

void redirect(int descriptor, const std::filesystem::path& path) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
  if (file < 0 || ::dup2(file, descriptor) < 0) {
    throw std::system_error(errno, std::generic_category(), path.string());
  }
  ::close(file);
}

TestResult read_result(const std::filesystem::path& folder, const ProcessEnd& end) {
  std::ifstream file(result_of(folder), std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  TestResult result;
  if (!text.view().empty()) result = from_json_text(text.str());
  if (!end.exited_with(0) || text.view().empty()) {
    result.fail(fmt::format("the test's process ended with {}\n", end.text()));
  }
  return result;
}

}  // namespace

TestSignals::TestSignals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGINT, SIGTERM, SIGCHLD}) sigaddset(&set, signal);
  descriptor_ = ::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  if (descriptor_ < 0) {
    throw std::system_error(errno, std::generic_category(), "descriptor for signals");
  }
  pthread_sigmask(SIG_BLOCK, &set, &before_);
}

TestSignals::~TestSignals() {
  ::close(descriptor_);
  pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

void TestSignals::wait(milliseconds patience) {
  pollfd waits{descriptor_, POLLIN, 0};
  ::poll(&waits, 1, static_cast<int>(patience.count()));
  signalfd_siginfo info{};
  while (::read(descriptor_, &info, sizeof info) == sizeof info) {
    if (info.ssi_signo != SIGCHLD) interrupted_ = true;
  }
}

TestResult run_in_process(const std::vector<std::string>& arguments,
                          const std::filesystem::path& folder, Duration timeout,
                          TestSignals& signals) {
  // The process itself tells who is stuck when its time is over; this is for one that cannot.
  constexpr std::chrono::seconds kGrace{10};
  std::filesystem::create_directories(folder);
  const auto begin = steady_clock::now();
  const auto deadline = begin + timeout + kGrace;
  TestResult result;
  {
    Process process(arguments, {}, signals.mask());
    std::optional<ProcessEnd> end;
    while (!(end = process.end()) && !signals.interrupted() && steady_clock::now() < deadline) {
      signals.wait(milliseconds(100));
    }
    if (end) {
      result = read_result(folder, *end);
    } else if (signals.interrupted()) {
      result.fail("interrupted\n");
    } else {
      result.fail(
          fmt::format("not done within {:g} s (timeout), and its process had to be killed\n",
                      std::chrono::duration<double>(timeout).count()));
    }
  }
  result.duration = std::chrono::duration_cast<milliseconds>(steady_clock::now() - begin);
  if (result.outcome == TestResult::Outcome::failed) result.log = last_lines(log_of(folder));
  std::error_code ignored;
  std::filesystem::remove(result_of(folder), ignored);
  return result;
}

void become_test_process(const std::filesystem::path& folder) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  redirect(STDOUT_FILENO, folder / "stdout");
  redirect(STDERR_FILENO, log_of(folder));
}

std::filesystem::path log_of(const std::filesystem::path& folder) { return folder / "stderr"; }

void report_result(const std::filesystem::path& folder, const TestResult& result) {
  std::ofstream file(result_of(folder), std::ios::binary);
  file << to_json_text(result);
  if (!file.flush()) throw std::runtime_error("cannot write the result of the test");
}

}  // namespace millrace::host
