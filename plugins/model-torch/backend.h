#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "millrace/error.h"

#include "card.h"

namespace millrace {

/// What is wrong with a model, as libtorch or this plugin says it; one line.
class MILLRACE_EXPORT ModelError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A loaded TorchScript model. Several threads may call `run` at once.
class Model {
 public:
  Model() = default;
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;
  virtual ~Model() = default;

  /// `bytes` holds `rows` sessions behind each other. Writes what the model gives for them, row by
  /// row, into `output` and returns how many numbers there are in a row. Throws ModelError.
  virtual std::size_t run(std::span<const std::uint8_t> bytes, std::size_t rows,
                          std::vector<float>& output) = 0;
};

/// The part of the plugin that is linked with libtorch exports this function under the name
/// `millrace_torch_backend`.
struct TorchBackend {
  /// Sets libtorch's and the BLAS library's number of threads for one operation, for the whole
  /// process: the first call decides. Returns the number in force. Call it before `load`.
  int (*use_threads)(int threads);
  const char* version;  ///< of libtorch
  /// Throws ModelError. Every call reads the file anew, so instances share no memory.
  std::shared_ptr<Model> (*load)(const std::filesystem::path& file, const TensorSpec& input);
};

/// Loads the backend beside the plugin, once. Throws std::runtime_error naming the file.
[[nodiscard]] const TorchBackend& torch_backend();

}  // namespace millrace
