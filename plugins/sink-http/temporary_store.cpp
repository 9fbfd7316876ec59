#include "temporary_store.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <system_error>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>

#include "directory_store.h"

namespace millrace {

std::unique_ptr<ChunkStore> ChunkStore::make(const UploadOptions& options) {
  if (temporary(options)) return std::make_unique<TemporaryStore>();
  return std::make_unique<DirectoryStore>(options.spool);
}

std::vector<std::unique_ptr<Chunk>> TemporaryStore::open(Context& /*context*/) {
  folder_ = std::filesystem::temp_directory_path();
  // Every chunk is an open file, and other stages need some too.
  rlimit limit{};
  const bool known = ::getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
  constexpr rlim_t kUsual = 1024;
  constexpr rlim_t kMost = 65536;
  most_chunks_ = static_cast<std::size_t>(std::min(known ? limit.rlim_cur : kUsual, kMost) / 2);
  try {
    Chunk trial;
    begin(trial);
  } catch (const std::system_error& error) {
    throw ConfigError("spool", error.what());
  }
  return {};
}

void TemporaryStore::begin(Chunk& chunk) {
  constexpr mode_t kMode = 0600;
  chunk.file = Descriptor(::open(folder_.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, kMode));
  if (chunk.file) return;
  if (errno == EOPNOTSUPP || errno == EISDIR) {
    // A file system that knows no files without a name.
    std::string path = folder_ / "millrace-XXXXXX";
    chunk.file = Descriptor(::mkostemp(path.data(), O_CLOEXEC));
    if (chunk.file) {
      ::unlink(path.c_str());
      return;
    }
  }
  throw std::system_error(errno, std::generic_category(),
                          fmt::format("cannot make a temporary file in '{}'", folder_.string()));
}

Descriptor TemporaryStore::read(const Chunk& chunk) const {
  Descriptor file(::fcntl(chunk.file.get(), F_DUPFD_CLOEXEC, 0));
  if (!file) throw std::system_error(errno, std::generic_category(), "cannot read the chunk");
  return file;
}

}  // namespace millrace
