#pragma once

#include <filesystem>
#include <string>

namespace millrace {

/// What the file of a TorchScript model shows without being run.
struct ModelFile {
  std::string sha256;   ///< of the whole file, 64 hexadecimal digits
  std::string written;  ///< by what, for people: "PyTorch 2.1 or newer (format version 3)"
};

/// Reads all of it. libtorch takes a damaged archive without a word, so the archive's own checksums
/// are compared here. Throws ModelError: the file is damaged, or something else than TorchScript,
/// which is then named.
[[nodiscard]] ModelFile read_model_file(const std::filesystem::path& file);

}  // namespace millrace
