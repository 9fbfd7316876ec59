#include <dlfcn.h>
#include <fmt/format.h>

#include "backend.h"

#define BOOST_DLL_USE_STD_FS
#include <boost/dll/runtime_symbol_info.hpp>
#include <boost/dll/shared_library.hpp>

namespace millrace {

namespace {

std::filesystem::path backend_file() {
#if defined(MODEL_TORCH_BACKEND)
  return MODEL_TORCH_BACKEND;  // a test program does not lie where the plugin does
#else
  return boost::dll::this_line_location().parent_path().parent_path() / "model-torch-backend.so";
#endif
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
