#include "state_file.h"

#include <array>
#include <cerrno>
#include <stdexcept>
#include <string_view>
#include <system_error>

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "descriptor.h"

namespace millrace {

namespace {

constexpr std::string_view kHead = "gtid ";

[[noreturn]] void fail(std::string_view verb, const std::filesystem::path& path) {
  const std::error_code error(errno, std::system_category());
  throw std::runtime_error(
      fmt::format("cannot {} the state file '{}': {}", verb, path.string(), error.message()));
}

Descriptor open_file(const std::filesystem::path& path, int flags, std::string_view verb) {
  constexpr int kMode = 0644;
  const int number = ::open(path.c_str(), flags | O_CLOEXEC, kMode);
  if (number < 0) fail(verb, path);
  return Descriptor(number);
}

}  // namespace

std::optional<GtidPosition> StateFile::read() const {
  const int number = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (number < 0 && errno == ENOENT) return std::nullopt;
  if (number < 0) fail("read", path_);
  const Descriptor file(number);
  std::string text;
  std::array<char, 4096> piece{};
  ssize_t size = 0;
  while ((size = ::read(file.get(), piece.data(), piece.size())) > 0) {
    text.append(piece.data(), static_cast<std::size_t>(size));
  }
  if (size < 0) fail("read", path_);
  std::string_view line = text;
  if (!line.starts_with(kHead) || !line.ends_with('\n')) {
    throw std::runtime_error(
        fmt::format("the state file '{}' is damaged: expected one line 'gtid POSITION'; delete it "
                    "to begin where 'start' says",
                    path_.string()));
  }
  line.remove_prefix(kHead.size());
  line.remove_suffix(1);
  try {
    return GtidPosition::parse(line);
  } catch (const std::invalid_argument& error) {
    throw std::runtime_error(
        fmt::format("the state file '{}' is damaged: {}; delete it to begin where 'start' says",
                    path_.string(), error.what()));
  }
}

void StateFile::write(const GtidPosition& position) const {
  const std::string text = std::string(kHead) + position.to_string() + "\n";
  std::filesystem::path fresh = path_;
  fresh += ".new";
  {
    const Descriptor file = open_file(fresh, O_WRONLY | O_CREAT | O_TRUNC, "write");
    for (std::string_view rest = text; !rest.empty();) {
      const ssize_t written = ::write(file.get(), rest.data(), rest.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) fail("write", fresh);
      rest.remove_prefix(static_cast<std::size_t>(written));
    }
    if (::fsync(file.get()) != 0) fail("write", fresh);
  }
  if (::rename(fresh.c_str(), path_.c_str()) != 0) fail("replace", path_);
  const std::filesystem::path folder = path_.has_parent_path() ? path_.parent_path() : ".";
  const Descriptor directory = open_file(folder, O_RDONLY | O_DIRECTORY, "sync");
  if (::fsync(directory.get()) != 0) fail("sync", folder);
}

}  // namespace millrace
