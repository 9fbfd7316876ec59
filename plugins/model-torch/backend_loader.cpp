#include <dlfcn.h>
#include <fmt/format.h>

#include "backend.h"

#define BOOST_DLL_USE_STD_FS
#include <boost/dll/runtime_symbol_info.hpp>
#include <boost/dll/shared_library.hpp>

namespace millrace {

namespace {

/// lib/millrace/, seen from lib/millrace/plugins/ or from a folder beside lib/.
std::filesystem::path backend_file() {
  const auto folder = boost::dll::this_line_location().parent_path();
  std::filesystem::path file = folder.parent_path() / "model-torch-backend.so";
  if (std::filesystem::exists(file)) return file;
  std::filesystem::path other =
      folder.parent_path() / "lib" / "millrace" / "model-torch-backend.so";
  return std::filesystem::exists(other) ? other : file;
}

const TorchBackend& load() {
  const std::filesystem::path file = backend_file();
  try {
    const boost::dll::shared_library library(file, boost::dll::load_mode::rtld_now);
    // libtorch starts threads and registers operators: it must never be unloaded.
    if (::dlopen(file.c_str(), RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE) == nullptr) {
      throw std::runtime_error(::dlerror());
    }
    return library.get<const TorchBackend>("millrace_torch_backend");
  } catch (const std::exception& error) {
    throw std::runtime_error(fmt::format("cannot load '{}': {}", file.string(), error.what()));
  }
}

}  // namespace

const TorchBackend& torch_backend() {
  static const TorchBackend& backend = load();
  return backend;
}

}  // namespace millrace
