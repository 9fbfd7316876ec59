#include "supervise/worker.h"

#include <cerrno>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "run/control.h"

namespace millrace::host {

namespace {

/// Of what a process tells, so much is kept.
constexpr std::size_t kMostText = 32 * 1024;

class Owned {
 public:
  explicit Owned(int descriptor) : descriptor_(descriptor) {}
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  ~Owned() { ::close(descriptor_); }
  [[nodiscard]] int get() const { return descriptor_; }

 private:
  int descriptor_;
};

void check(int result) {
  if (result < 0) {
    throw std::system_error(errno, std::generic_category(), "a line to the pipeline's process");
  }
}

}  // namespace

Worker::Worker(Task task, const std::vector<std::string>& arguments, Handover handover,
               const sigset_t& mask)
    : task_(task), handover_(std::move(handover)) {
  const Owned configuration(write_handover(handover_));
  int ends[2];
  if (task == Task::check) {
    check(::pipe2(ends, O_CLOEXEC));
    check(::fcntl(ends[0], F_SETFL, O_NONBLOCK));
  } else {
    check(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends));
  }
  const Owned theirs(ends[1]);
  const Owned ours(ends[0]);
  const int line = task == Task::check ? STDERR_FILENO : kLine;
  process_ = std::make_unique<Process>(
      arguments, Process::Descriptors{{configuration.get(), kHandover}, {theirs.get(), line}},
      mask);
  line_ = ::fcntl(ours.get(), F_DUPFD_CLOEXEC, 0);
  check(line_);
}

Worker::~Worker() { hang_up(); }

void Worker::hang_up() noexcept {
  if (line_ >= 0) ::close(line_);
  line_ = -1;
}

bool Worker::listen() {
  bool news = false;
  std::string part(Control::kLongest + 1, '\0');
  while (line_ >= 0) {
    const ssize_t size = task_ == Task::check
                             ? ::read(line_, part.data(), part.size())
                             : ::recv(line_, part.data(), part.size(), MSG_DONTWAIT);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return news;
    if (size <= 0) {
      hang_up();
      return news;
    }
    news = true;
    std::string_view text(part.data(), static_cast<std::size_t>(size));
    if (task_ == Task::run) {
      const auto kind = static_cast<Control::Message>(text.front());
      text.remove_prefix(1);
      heard_ = std::chrono::steady_clock::now();
      if (kind == Control::Message::counts) {
        counts_ = text;
        continue;
      }
      if (kind == Control::Message::health) {
        health_ = text;
        continue;
      }
      if (kind == Control::Message::metrics_part || kind == Control::Message::metrics) {
        metrics_parts_ += text;
        // A part may have got lost on the way; whole ones follow.
        if (kind == Control::Message::metrics && metrics_parts_.starts_with("# HELP")) {
          metrics_ = metrics_parts_;
        }
        if (kind == Control::Message::metrics) metrics_parts_.clear();
        continue;
      }
      if (!errors_.empty() && !errors_.ends_with('\n')) errors_ += '\n';
    }
    errors_ += text.substr(0, kMostText - std::min(kMostText, errors_.size()));
  }
  return news;
}

}  // namespace millrace::host
