#pragma once

#include "chunk_store.h"

namespace millrace {

/// A folder with chunks that outlive the process:
/// `NUMBER-TIME-ID.part` is being written, `NUMBER-TIME-ID-PACKETS.pcap.zst` waits to be sent,
/// `rejected/` and `damaged/` hold what never will be. `lock` belongs to the process that uses it.
class DirectoryStore final : public ChunkStore {
 public:
  explicit DirectoryStore(std::filesystem::path folder) : folder_(std::move(folder)) {}

  [[nodiscard]] bool durable() const override { return true; }
  [[nodiscard]] std::size_t most_chunks() const override;
  std::vector<std::unique_ptr<Chunk>> open(Context& context) override;
  void begin(Chunk& chunk) override;
  void seal(Chunk& chunk) override;
  [[nodiscard]] Descriptor read(const Chunk& chunk) const override;
  void remove(const Chunk& chunk) noexcept override;
  void set_aside(const Chunk& chunk, Aside where, const std::string& reason) override;
  [[nodiscard]] std::uint64_t aside_bytes() const override { return aside_bytes_; }
  bool drop_aside() override;

 private:
  struct AsideFile {
    std::filesystem::path path;
    std::uint64_t bytes = 0;
  };

  void take_lock();
  std::unique_ptr<Chunk> adopt(ChunkName name, std::uint64_t bytes, Context& context);
  void repair(Chunk& chunk, Context& context);
  void find_aside();
  void add_aside(const std::filesystem::path& path);
  void sync_folder() const;

  std::filesystem::path folder_;
  Descriptor lock_;
  Descriptor directory_;
  std::deque<AsideFile> aside_;  ///< oldest first
  std::uint64_t aside_bytes_ = 0;
};

}  // namespace millrace
