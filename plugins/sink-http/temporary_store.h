#pragma once

#include "chunk_store.h"

namespace millrace {

/// Files without a name, in the system's folder for temporary files: they vanish with the process,
/// however it ends.
class TemporaryStore final : public ChunkStore {
 public:
  [[nodiscard]] bool durable() const override { return false; }
  [[nodiscard]] std::size_t most_chunks() const override { return most_chunks_; }
  std::vector<std::unique_ptr<Chunk>> open(Context& context) override;
  void begin(Chunk& chunk) override;
  void seal(Chunk& /*chunk*/) override {}
  [[nodiscard]] Descriptor read(const Chunk& chunk) const override;
  void remove(const Chunk& /*chunk*/) noexcept override {}
  void set_aside(const Chunk& /*chunk*/, Aside /*where*/, const std::string& /*reason*/) override {}
  [[nodiscard]] std::uint64_t aside_bytes() const override { return 0; }
  bool drop_aside() override { return false; }

 private:
  std::filesystem::path folder_;
  std::size_t most_chunks_ = 0;
};

}  // namespace millrace
