#include "options.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <memory>

#include <curl/curl.h>
#include <fmt/format.h>
#include <unistd.h>

namespace millrace {

namespace {

constexpr std::size_t kMostName = 128;

bool fits_name(char c) {
  constexpr std::string_view kAlso = "-._:@/+=";
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || kAlso.find(c) != kAlso.npos;
}

struct FreeUrl {
  void operator()(CURLU* url) const { curl_url_cleanup(url); }
};
using Url = std::unique_ptr<CURLU, FreeUrl>;

Url parsed(const std::string& text) {
  Url url(curl_url());
  if (!url || curl_url_set(url.get(), CURLUPART_URL, text.c_str(), 0) != CURLUE_OK) url.reset();
  return url;
}

std::string part(const Url& url, CURLUPart which) {
  char* text = nullptr;
  if (curl_url_get(url.get(), which, &text, 0) != CURLUE_OK) return {};
  std::string copy(text);
  curl_free(text);
  return copy;
}

void check_url(const UploadOptions& options, Findings& findings) {
  const Url url = parsed(options.url);
  const std::string scheme = url ? part(url, CURLUPART_SCHEME) : "";
  if (scheme != "http" && scheme != "https") {
    findings.add("url", "expected http://HOST:PORT or https://HOST:PORT, with a path or without");
    return;
  }
  if (!part(url, CURLUPART_USER).empty()) {
    findings.add("url", "user and password do not belong here; use 'token' or 'certificate'");
  }
  if (scheme == "https") return;
  for (const auto& [name, value] :
       {std::pair("ca", &options.ca), std::pair("certificate", &options.certificate)}) {
    if (!value->empty()) findings.add(name, "is for TLS, and 'url' says http://");
  }
}

}  // namespace

void check_upload_options(const UploadOptions& options, Findings& findings) {
  check_url(options, findings);
  if (!options.agent.empty() &&
      (options.agent.size() > kMostName || !std::ranges::all_of(options.agent, fits_name))) {
    findings.add("agent", fmt::format("expected 1 to {} characters of A-Z, a-z, 0-9 and -._:@/+=",
                                      kMostName));
  }
  if (options.spool.empty()) findings.add("spool", "expected a folder, or \"tmp\"");
  if (options.certificate.empty() != options.key.empty()) {
    findings.add(options.key.empty() ? "certificate" : "key",
                 "'certificate' and 'key' come together");
  }
  if (!options.token.empty() && !options.token_file.empty()) {
    findings.add("token_file", "there is a 'token' already");
  }
  if (options.spool_bytes.bytes < 2 * options.chunk_bytes.bytes) {
    findings.add("spool_bytes", "must be twice 'chunk_bytes' at least");
  }
  if (options.keep_rejected.bytes > options.spool_bytes.bytes) {
    findings.add("keep_rejected", "is more than 'spool_bytes'");
  }
  if (options.flush_bytes > options.chunk_bytes) {
    findings.add("flush_bytes", "is more than 'chunk_bytes'");
  }
  if (options.retry_max < options.retry_first) {
    findings.add("retry_max", "must be 'retry_first' at least");
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

std::string upload_url(const std::string& text) {
  const Url url = parsed(text);
  if (!url) return text;
  const std::string path = part(url, CURLUPART_PATH);
  if (path.empty() || path == "/") curl_url_set(url.get(), CURLUPART_PATH, "/v1/captures", 0);
  return part(url, CURLUPART_URL);
}

}  // namespace millrace
