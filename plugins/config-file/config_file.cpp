#include "config_file.h"

#include <array>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <system_error>
#include <vector>

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "toml_values.h"

namespace millrace {

namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

/// Values for a pipeline file; a larger file is a mistake, such as the path of a log.
constexpr std::size_t kLargest = 1U << 20U;
/// A folder that is not there cannot be watched and is looked for so often.
constexpr milliseconds kLookAgain{500};
/// A folder in which something happens all the time is not waited for longer than so many times
/// `settle`.
constexpr int kPatience = 10;

[[noreturn]] void fail(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  [[nodiscard]] int get() const noexcept { return number_; }

 private:
  int number_;
};

/// The file's bytes, or why there are none.
struct Content {
  std::optional<std::string> bytes;
  int error = 0;
};

Content read_file(const std::string& path) {
  // Not blocking: a named pipe must not hold the provider.
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  struct stat status {};
  if (file.get() < 0 || ::fstat(file.get(), &status) != 0) return {{}, errno};
  if (S_ISDIR(status.st_mode)) return {{}, EISDIR};
  if (!S_ISREG(status.st_mode)) return {{}, EINVAL};
  std::string bytes;
  std::array<char, 16384> piece{};
  while (bytes.size() <= kLargest) {
    const ssize_t size = ::read(file.get(), piece.data(), piece.size());
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return {{}, errno};
    if (size == 0) return {std::move(bytes), 0};
    bytes.append(piece.data(), static_cast<std::size_t>(size));
  }
  return {{}, EFBIG};
}

/// The folder of a file, and the folder of what the file is a link to.
class FolderWatch {
 public:
  explicit FolderWatch(const std::string& path)
      : path_(path), inotify_(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK)) {
    if (inotify_.get() < 0) fail("inotify");
  }

  [[nodiscard]] int descriptor() const noexcept { return inotify_.get(); }

  /// Whether a change cannot escape. To be called before the file is read.
  bool watch() {
    const fs::path folder = fs::path(path_).parent_path();
    const bool watched = add(folder.empty() ? "." : folder);
    std::error_code error;
    const fs::path real = fs::canonical(path_, error);
    if (!error) add(real.parent_path());
    return watched;
  }

  void drop_events() const {
    alignas(inotify_event) std::array<char, 4096> events{};
    while (::read(inotify_.get(), events.data(), events.size()) > 0) {
    }
  }

 private:
  bool add(const fs::path& folder) const {
    // Of a folder that is watched already the same number comes back.
    constexpr std::uint32_t kEvents = IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE |
                                      IN_DELETE | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF |
                                      IN_ONLYDIR;
    return ::inotify_add_watch(inotify_.get(), folder.c_str(), kEvents) >= 0;
  }

  std::string path_;
  Descriptor inotify_;
};

}  // namespace

void ConfigFile::open(Context& context) {
  context_ = &context;
  if (options_.path.empty() || options_.path.ends_with('/')) {
    throw ConfigError("path", "expected the name of a TOML file");
  }
}

void ConfigFile::run(ConfigListener& listener, std::stop_token stop) {
  FolderWatch folder(options_.path);
  const Descriptor ended(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (ended.get() < 0) fail("eventfd");
  const std::stop_callback on_stop(stop, [&ended] { ::eventfd_write(ended.get(), 1); });
  const auto happens = [&](int milliseconds) {
    std::array<pollfd, 2> waits{{{ended.get(), POLLIN, 0}, {folder.descriptor(), POLLIN, 0}}};
    return ::poll(waits.data(), waits.size(), milliseconds) > 0 && !stop.stop_requested();
  };
  const auto settle = std::chrono::ceil<milliseconds>(options_.settle);
  while (!stop.stop_requested()) {
    const bool watched = folder.watch();
    look(listener);
    if (!happens(watched ? -1 : static_cast<int>(kLookAgain.count()))) continue;
    const auto until = steady_clock::now() + settle * kPatience;
    do {
      folder.drop_events();
    } while (steady_clock::now() < until && happens(static_cast<int>(settle.count())));
  }
}

void ConfigFile::look(ConfigListener& listener) {
  Content now = read_file(options_.path);
  if (!now.bytes) {
    say_missing(std::generic_category().message(now.error));
    return;
  }
  missing_.clear();
  if (now.bytes == content_) return;
  content_ = std::move(now.bytes);
  ++generation_;
  try {
    listener.changed({generation_, read_toml_values(*content_, options_.path)});
  } catch (const std::exception& error) {
    listener.unreadable(generation_, error.what());
  }
}

void ConfigFile::say_missing(std::string why) {
  if (why == missing_) return;
  missing_ = std::move(why);
  if (generation_ == 0) {
    context_->info(
        fmt::format("'{}' cannot be read yet ({}); waiting for it", options_.path, missing_));
  } else {
    context_->warning(fmt::format("'{}' cannot be read any more ({}); generation {} stays in use",
                                  options_.path, missing_, generation_));
  }
}

}  // namespace millrace

using namespace millrace;

MILLRACE_PLUGIN(
    "config-file", MILLRACE_VERSION,
    provider<ConfigFile, ConfigFileOptions>(
        "config-file", "Values from a TOML file, again at every change of it",
        option<&ConfigFileOptions::path>("path",
                                         "the TOML file; one that is not there yet is waited for"),
        option<&ConfigFileOptions::settle>(
            "settle",
            "the file is read when its folder has been quiet for so long, after ten times as "
            "long in any case")
            .between(std::chrono::milliseconds(1), std::chrono::seconds(10)),
        option<&ConfigFileOptions::server>(
            "server", "not used; taken so that only 'use' changes in place of config-zk"),
        option<&ConfigFileOptions::node>("node", "likewise"),
        option<&ConfigFileOptions::agent>("agent", "likewise")))
