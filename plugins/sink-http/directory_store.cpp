#include "directory_store.h"

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <limits>
#include <system_error>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "capture_frame.h"

namespace millrace {

namespace {

namespace fs = std::filesystem;

constexpr mode_t kMode = 0600;  // packets are nobody else's business
constexpr const char* kReason = ".reason";

[[noreturn]] void fail(const char* doing, const fs::path& path) {
  throw std::system_error(errno, std::generic_category(),
                          fmt::format("cannot {} '{}'", doing, path.string()));
}

Descriptor open_file(const fs::path& path, int flags) {
  Descriptor file(::open(path.c_str(), flags | O_CLOEXEC | O_NOFOLLOW, kMode));
  if (!file) fail("open", path);
  return file;
}

const char* folder_of(ChunkStore::Aside where) {
  return where == ChunkStore::Aside::rejected ? "rejected" : "damaged";
}

}  // namespace

std::size_t DirectoryStore::most_chunks() const { return std::numeric_limits<std::size_t>::max(); }

std::vector<std::unique_ptr<Chunk>> DirectoryStore::open(Context& context) {
  try {
    for (const char* name : {"", "rejected", "damaged"}) {
      // The folder's parent must be there: a mount that is missing should not be papered over.
      const fs::path path = *name == '\0' ? folder_ : folder_ / name;
      if (::mkdir(path.c_str(), S_IRWXU) != 0 && errno != EEXIST) fail("make", path);
    }
    directory_ = open_file(folder_, O_RDONLY | O_DIRECTORY);
    take_lock();
    find_aside();
    std::vector<std::unique_ptr<Chunk>> chunks;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder_)) {
      auto name = ChunkName::parse(entry.path().filename().string());
      if (!name || !entry.is_regular_file() || entry.is_symlink()) continue;
      if (auto chunk = adopt(std::move(*name), entry.file_size(), context)) {
        chunks.push_back(std::move(chunk));
      }
    }
    std::ranges::sort(chunks, {}, [](const auto& chunk) { return chunk->name.number; });
    return chunks;
  } catch (const std::system_error& error) {
    throw ConfigError("spool", error.what());
  }
}

void DirectoryStore::take_lock() {
  const fs::path path = folder_ / "lock";
  lock_ = open_file(path, O_RDWR | O_CREAT);
  if (::flock(lock_.get(), LOCK_EX | LOCK_NB) == 0) return;
  if (errno != EWOULDBLOCK) fail("lock", path);
  throw ConfigError("spool", fmt::format("'{}' is in use by another process; every stage needs a "
                                         "folder of its own",
                                         folder_.string()));
}

/// A file that an earlier process has left; null if nothing of it can be sent.
std::unique_ptr<Chunk> DirectoryStore::adopt(ChunkName name, std::uint64_t bytes,
                                             Context& context) {
  auto chunk = std::make_unique<Chunk>();
  chunk->mine = false;
  chunk->state = Chunk::State::waiting;
  chunk->packets = name.packets.value_or(0);
  chunk->bytes = bytes;
  chunk->checked = !name.packets;
  chunk->name = std::move(name);
  if (chunk->name.packets) return chunk;
  const fs::path path = folder_ / chunk->name.file();
  try {
    repair(*chunk, context);
  } catch (const std::system_error& error) {
    // One file that cannot be read must not stop the start; the next one tries again.
    context.error(fmt::format("left alone: {}", error.what()));
    return nullptr;
  }
  return chunk->bytes == 0 ? nullptr : std::move(chunk);
}

/// A process ended while it wrote this one: whole frames are kept.
void DirectoryStore::repair(Chunk& chunk, Context& context) {
  const fs::path path = folder_ / chunk.name.file();
  chunk.file = open_file(path, O_RDWR);
  const ChunkContent content = read_chunk(chunk.file.get());
  if (content.good_bytes == 0) {
    if (chunk.bytes == 0) {
      ::unlink(path.c_str());
      return;
    }
    context.counter("damaged").add();
    context.warning(fmt::format("set aside in 'damaged': {}: {}", path.string(), content.problem));
    set_aside(chunk, Aside::damaged, content.problem);
    chunk.bytes = 0;
    return;
  }
  if (content.good_bytes < chunk.bytes) {
    context.warning(fmt::format("{}: {} at byte {}; the {} bytes from there on are cut off",
                                path.string(), content.problem, content.good_bytes,
                                chunk.bytes - content.good_bytes));
    if (::ftruncate(chunk.file.get(), static_cast<off_t>(content.good_bytes)) != 0) {
      fail("cut", path);
    }
  }
  chunk.bytes = content.good_bytes;
  chunk.packets = content.packets;
  seal(chunk);
}

void DirectoryStore::begin(Chunk& chunk) {
  chunk.file = open_file(folder_ / chunk.name.file(), O_RDWR | O_CREAT | O_EXCL);
}

void DirectoryStore::seal(Chunk& chunk) {
  const fs::path part = folder_ / chunk.name.file();
  if (::fsync(chunk.file.get()) != 0) fail("write", part);
  ChunkName finished = chunk.name;
  finished.packets = chunk.packets;
  const fs::path path = folder_ / finished.file();
  if (::rename(part.c_str(), path.c_str()) != 0) fail("rename", part);
  chunk.name = std::move(finished);
  chunk.file.reset();
  sync_folder();
}

void DirectoryStore::sync_folder() const {
  if (::fsync(directory_.get()) != 0) fail("write", folder_);
}

Descriptor DirectoryStore::read(const Chunk& chunk) const {
  return open_file(folder_ / chunk.name.file(), O_RDONLY);
}

void DirectoryStore::remove(const Chunk& chunk) noexcept {
  try {
    ::unlink((folder_ / chunk.name.file()).c_str());
  } catch (const std::exception&) {
    return;  // out of memory: it is sent once more after the next start, and known by its id
  }
}

void DirectoryStore::set_aside(const Chunk& chunk, Aside where, const std::string& reason) {
  const fs::path from = folder_ / chunk.name.file();
  const fs::path to = folder_ / folder_of(where) / from.filename();
  if (::rename(from.c_str(), to.c_str()) != 0) fail("set aside", from);
  {
    std::ofstream out(to.string() + kReason, std::ios::binary);
    out << reason << '\n';
  }
  add_aside(to);
}

void DirectoryStore::add_aside(const fs::path& path) {
  std::error_code error;
  const std::uint64_t chunk = fs::file_size(path, error);
  const std::uint64_t bytes = on_disk(error ? 0 : chunk);
  const std::uint64_t reason = fs::file_size(path.string() + kReason, error);
  aside_.push_back({path, bytes + (error ? 0 : on_disk(reason))});
  aside_bytes_ += aside_.back().bytes;
}

void DirectoryStore::find_aside() {
  for (const Aside where : {Aside::rejected, Aside::damaged}) {
    for (const fs::directory_entry& entry : fs::directory_iterator(folder_ / folder_of(where))) {
      if (ChunkName::parse(entry.path().filename().string())) add_aside(entry.path());
    }
  }
  // Numbers begin anew when a folder was empty at the start.
  std::ranges::sort(aside_, {}, [](const AsideFile& file) {
    const auto name = ChunkName::parse(file.path.filename().string());
    return name ? std::pair(name->time, name->number) : std::pair(std::string(), std::uint64_t{0});
  });
}

bool DirectoryStore::drop_aside() {
  if (aside_.empty()) return false;
  const AsideFile oldest = std::move(aside_.front());
  aside_.pop_front();
  aside_bytes_ -= oldest.bytes;
  ::unlink(oldest.path.c_str());
  ::unlink((oldest.path.string() + kReason).c_str());
  return true;
}

}  // namespace millrace
