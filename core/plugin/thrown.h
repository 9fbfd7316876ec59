#pragma once

#include <exception>
#include <string>

namespace millrace::host {

/// In a handler: what was thrown, for a message. Plugins may throw anything.
[[nodiscard]] inline std::string thrown_text() {
  try {
    throw;
  } catch (const std::exception& error) {
    return error.what();
  } catch (...) {
    return "it threw something that is no std::exception";
  }
}

}  // namespace millrace::host
