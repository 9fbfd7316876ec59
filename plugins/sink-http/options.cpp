#include "options.h"

#include <algorithm>
#include <array>
#include <cctype>

#include <fmt/format.h>
#include <unistd.h>

namespace millrace {

namespace {

constexpr std::size_t kMostName = 128;

bool fits_name(char c) {
  constexpr std::string_view kAlso = "-._:@/+=";
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || kAlso.find(c) != kAlso.npos;
}

}  // namespace

void check_upload_options(const UploadOptions& options, Findings& findings) {
  check_http_server(http_server(options), findings);
  if (!options.agent.empty() &&
      (options.agent.size() > kMostName || !std::ranges::all_of(options.agent, fits_name))) {
    findings.add("agent", fmt::format("expected 1 to {} characters of A-Z, a-z, 0-9 and -._:@/+=",
                                      kMostName));
  }
  if (options.spool.empty()) findings.add("spool", "expected a folder, or \"tmp\"");
  if (options.spool_bytes.bytes < 2 * options.chunk_bytes.bytes) {
    findings.add("spool_bytes", "must be twice 'chunk_bytes' at least");
  }
}

std::string agent_name(const UploadOptions& options) {
  if (!options.agent.empty()) return options.agent;
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) != 0 || host[0] == '\0') return "unnamed";
  std::string name = host.data();
  if (name.size() > kMostName) name.resize(kMostName);
  std::ranges::replace_if(
      name, [](char c) { return !fits_name(c); }, '-');
  return name;
}

HttpServer http_server(const UploadOptions& options) {
  return {url_with_path(options.url, "/v1/captures"),
          options.token,
          options.token_file,
          options.ca,
          options.certificate,
          options.key,
          options.connect_timeout,
          options.retry_after_max};
}

}  // namespace millrace
