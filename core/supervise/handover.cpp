#include "supervise/handover.h"

#include <cerrno>
#include <charconv>
#include <stdexcept>
#include <string_view>
#include <system_error>

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

namespace millrace::host {

namespace {

/// Texts as netstrings (https://cr.yp.to/proto/netstrings.txt): any bytes, no escapes.
void append(std::string& out, std::string_view text) {
  out += fmt::format("{}:{},", text.size(), text);
}

class Netstrings {
 public:
  explicit Netstrings(std::string_view rest) : rest_(rest) {}

  [[nodiscard]] bool empty() const { return rest_.empty(); }

  std::string_view next() {
    const std::size_t size = number(rest_.substr(0, rest_.find(':')));
    const std::size_t colon = rest_.find(':');
    if (colon == std::string_view::npos || rest_.size() - colon - 1 <= size ||
        rest_[colon + 1 + size] != ',') {
      broken();
    }
    const std::string_view text = rest_.substr(colon + 1, size);
    rest_.remove_prefix(colon + size + 2);
    return text;
  }

  static std::uint64_t number(std::string_view text) {
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) broken();
    return value;
  }

 private:
  [[noreturn]] static void broken() {
    throw std::runtime_error("the descriptor holds no configuration of a supervisor");
  }
  std::string_view rest_;
};

}  // namespace

int write_handover(const Handover& handover) {
  std::string text;
  append(text, handover.pipeline);
  append(text, std::to_string(handover.config.generation));
  for (const auto& [key, value] : handover.config.values) {
    append(text, key);
    append(text, value);
  }
  const int file = ::memfd_create("millrace-config", MFD_CLOEXEC);
  std::string_view rest = text;
  while (file >= 0 && !rest.empty()) {
    const ssize_t written = ::write(file, rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) break;
    rest.remove_prefix(static_cast<std::size_t>(written));
  }
  if (file < 0 || !rest.empty()) {
    const std::system_error error(errno, std::generic_category(), "handing over a configuration");
    if (file >= 0) ::close(file);
    throw error;
  }
  return file;
}

Handover read_handover(int descriptor) {
  std::string text;
  char part[4096];
  while (true) {
    const ssize_t size = ::pread(descriptor, part, sizeof part, static_cast<off_t>(text.size()));
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) {
      throw std::system_error(errno, std::generic_category(), "reading the configuration");
    }
    if (size == 0) break;
    text.append(part, static_cast<std::size_t>(size));
  }
  Netstrings strings(text);
  Handover handover;
  handover.pipeline = strings.next();
  handover.config.generation = Netstrings::number(strings.next());
  while (!strings.empty()) {
    std::string key(strings.next());
    handover.config.values[std::move(key)] = strings.next();
  }
  return handover;
}

}  // namespace millrace::host
