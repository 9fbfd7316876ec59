#include "run/dead_letters.h"

#include <cerrno>
#include <chrono>
#include <string>
#include <system_error>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "millrace/json.h"
#include "millrace/session.h"

namespace millrace::host {

namespace {

[[noreturn]] void failed(const std::string& what) {
  throw std::system_error(errno, std::generic_category(), what);
}

}  // namespace

/// An open file that only ever grows by whole lines, as long as it is one that can be cut.
class DeadLetters::File {
 public:
  explicit File(const std::filesystem::path& path)
      : descriptor_(::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, kMode)) {
    // What cannot be read, a pipe say, may still be written.
    if (descriptor_ < 0) descriptor_ = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
    if (descriptor_ < 0) failed(path.string());
    struct stat status {};
    regular_ = ::fstat(descriptor_, &status) == 0 && S_ISREG(status.st_mode);
    const Locked locked(descriptor_);
    cut_half_line();
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() { ::close(descriptor_); }

  void append(std::string_view lines) {
    const Locked locked(descriptor_);
    const off_t before = size();
    while (!lines.empty()) {
      const ssize_t written = ::write(descriptor_, lines.data(), lines.size());
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) {
        const int why = written == 0 ? ENOSPC : errno;
        if (regular_) static_cast<void>(::ftruncate(descriptor_, before) == 0);
        errno = why;
        failed("dead letters cannot be written");
      }
      lines.remove_prefix(static_cast<std::size_t>(written));
    }
  }

 private:
  static constexpr mode_t kMode = 0666;  // less the umask

  /// Other writers wait.
  class Locked {
   public:
    explicit Locked(int descriptor) : descriptor_(descriptor) { ::flock(descriptor_, LOCK_EX); }
    Locked(const Locked&) = delete;
    Locked& operator=(const Locked&) = delete;
    ~Locked() { ::flock(descriptor_, LOCK_UN); }

   private:
    int descriptor_;
  };

  [[nodiscard]] off_t size() const { return regular_ ? ::lseek(descriptor_, 0, SEEK_END) : 0; }

  void cut_half_line() const {
    if (!regular_) return;
    off_t end = size();
    char part[4096];
    while (end > 0) {
      const auto room = static_cast<off_t>(sizeof part);
      const off_t from = end > room ? end - room : 0;
      const ssize_t got = ::pread(descriptor_, part, static_cast<std::size_t>(end - from), from);
      if (got != static_cast<ssize_t>(end - from)) return;  // not readable: as it is
      const std::size_t line_end =
          std::string_view(part, static_cast<std::size_t>(got)).rfind('\n');
      if (line_end != std::string_view::npos) {
        end = from + static_cast<off_t>(line_end) + 1;
        break;
      }
      end = from;
    }
    if (end != size() && ::ftruncate(descriptor_, end) != 0) failed("cutting half a line");
  }

  int descriptor_;
  bool regular_ = false;
};

DeadLetters::DeadLetters(const std::filesystem::path& path) : file_(std::make_unique<File>(path)) {}

DeadLetters::~DeadLetters() = default;

void DeadLetters::write(std::string_view stage, std::string_view reason, const BatchBase& items) {
  const std::string now =
      to_rfc3339(std::chrono::time_point_cast<Duration>(std::chrono::system_clock::now()));
  std::string lines;
  for (std::size_t i = 0; i < items.type().count(items); ++i) {
    {
      json::Object object(lines);
      object.member("time", now);
      object.member("stage", stage);
      object.member("reason", reason);
      object.member("type", items.type().name);
      items.type().describe(items, i, object.key("item"));
    }
    lines += '\n';
  }
  const std::lock_guard lock(mutex_);
  file_->append(lines);
}

}  // namespace millrace::host
