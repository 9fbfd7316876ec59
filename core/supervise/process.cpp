#include "supervise/process.h"

#include <cerrno>
#include <cstring>
#include <memory>
#include <system_error>

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

extern char** environ;  // NOLINT(readability-redundant-declaration)

namespace millrace::host {

namespace {

ProcessEnd end_of(int status) {
  ProcessEnd end;
  if (WIFSIGNALED(status)) {
    end.signal = WTERMSIG(status);
  } else {
    end.exit_code = WEXITSTATUS(status);
  }
  return end;
}

void check(int error, const char* doing) {
  if (error != 0) throw std::system_error(error, std::generic_category(), doing);
}

class Copy {
 public:
  explicit Copy(int descriptor) : copy_(::fcntl(descriptor, F_DUPFD_CLOEXEC, 64)) {
    if (copy_ < 0) check(errno, "starting a process");
  }
  Copy(const Copy&) = delete;
  Copy& operator=(const Copy&) = delete;
  ~Copy() { ::close(copy_); }
  [[nodiscard]] int get() const { return copy_; }

 private:
  int copy_;
};

class FileActions {
 public:
  FileActions() { check(::posix_spawn_file_actions_init(&actions_), "starting a process"); }
  FileActions(const FileActions&) = delete;
  FileActions& operator=(const FileActions&) = delete;
  ~FileActions() { ::posix_spawn_file_actions_destroy(&actions_); }
  void give(int descriptor, int number) {
    check(::posix_spawn_file_actions_adddup2(&actions_, descriptor, number), "starting a process");
  }
  [[nodiscard]] const posix_spawn_file_actions_t* get() const { return &actions_; }

 private:
  posix_spawn_file_actions_t actions_{};
};

class Attributes {
 public:
  explicit Attributes(const sigset_t& mask) {
    check(::posix_spawnattr_init(&attributes_), "starting a process");
    ::posix_spawnattr_setsigmask(&attributes_, &mask);
    ::posix_spawnattr_setpgroup(&attributes_, 0);
    ::posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
  }
  Attributes(const Attributes&) = delete;
  Attributes& operator=(const Attributes&) = delete;
  ~Attributes() { ::posix_spawnattr_destroy(&attributes_); }
  [[nodiscard]] const posix_spawnattr_t* get() const { return &attributes_; }

 private:
  posix_spawnattr_t attributes_{};
};

}  // namespace

std::string ProcessEnd::text() const {
  if (signal == 0) return fmt::format("exit code {}", exit_code);
  return fmt::format("signal {} ({})", signal, ::strsignal(signal));
}

Process::Process(const std::vector<std::string>& arguments, const Descriptors& descriptors,
                 const sigset_t& mask) {
  FileActions actions;
  // Out of the way first, as one's number here may be another's number there.
  std::vector<std::unique_ptr<Copy>> held;
  for (const auto& [ours, theirs] : descriptors) {
    held.push_back(std::make_unique<Copy>(ours));
    actions.give(held.back()->get(), theirs);
  }
  const Attributes attributes(mask);
  std::vector<std::string> copies;
  copies.emplace_back("millrace");
  copies.insert(copies.end(), arguments.begin(), arguments.end());
  std::vector<char*> pointers;
  pointers.reserve(copies.size() + 1);
  for (std::string& copy : copies) pointers.push_back(copy.data());
  pointers.push_back(nullptr);
  // This very program, even if another version has been installed over it meanwhile.
  check(::posix_spawn(&pid_, "/proc/self/exe", actions.get(), attributes.get(), pointers.data(),
                      environ),
        "starting the pipeline's process");
}

Process::~Process() {
  if (end_) return;
  send(SIGKILL);
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
}

void Process::send(int signal) const noexcept {
  if (!end_) ::kill(pid_, signal);
}

std::optional<ProcessEnd> Process::end() {
  if (end_) return end_;
  int status = 0;
  if (::waitpid(pid_, &status, WNOHANG) == pid_) end_ = end_of(status);
  return end_;
}

}  // namespace millrace::host
