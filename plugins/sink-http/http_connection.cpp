#include "http_connection.h"

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <mutex>
#include <new>
#include <stdexcept>
#include <system_error>
#include <utility>

#include <fmt/format.h>
#include <unistd.h>

#include "millrace/error.h"

namespace millrace {

namespace {

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

void check_url(const HttpServer& server, Findings& findings) {
  const Url url = parsed(server.url);
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
       {std::pair("ca", &server.ca), std::pair("certificate", &server.certificate)}) {
    if (!value->empty()) findings.add(name, "is for TLS, and 'url' says http://");
  }
}

void must_be_readable(const char* option, const std::string& path) {
  if (path.empty() || ::access(path.c_str(), R_OK) == 0) return;
  const std::error_code error(errno, std::system_category());
  throw ConfigError(option, fmt::format("cannot read '{}': {}", path, error.message()));
}

/// For people: one line, not too long.
std::string printable(std::string text) {
  constexpr std::size_t kMost = 4096;
  if (text.size() > kMost) text.resize(kMost);
  std::ranges::replace_if(
      text, [](unsigned char c) { return c < ' ' || c == 0x7F; }, ' ');
  while (text.ends_with(' ')) text.pop_back();
  return text;
}

class Headers {
 public:
  Headers() = default;
  Headers(const Headers&) = delete;
  Headers& operator=(const Headers&) = delete;
  ~Headers() { curl_slist_free_all(list_); }

  void add(const std::string& line) {
    curl_slist* const more = curl_slist_append(list_, line.c_str());
    if (more == nullptr) throw std::bad_alloc();
    list_ = more;
  }
  [[nodiscard]] curl_slist* get() const { return list_; }

 private:
  curl_slist* list_ = nullptr;
};

Answer::Verdict verdict_without_answer(CURLcode code) {
  switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
    case CURLE_SSL_CONNECT_ERROR:
      return Answer::Verdict::unreachable;
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
      return Answer::Verdict::refused;
    default:
      return Answer::Verdict::again;
  }
}

}  // namespace

void check_http_server(const HttpServer& server, Findings& findings) {
  check_url(server, findings);
  if (server.certificate.empty() != server.key.empty()) {
    findings.add(server.key.empty() ? "certificate" : "key",
                 "'certificate' and 'key' come together");
  }
  if (!server.token.empty() && !server.token_file.empty()) {
    findings.add("token_file", "there is a 'token' already");
  }
}

std::string url_with_path(const std::string& text, const char* path) {
  const Url url = parsed(text);
  if (!url) return text;
  const std::string its = part(url, CURLUPART_PATH);
  if (its.empty() || its == "/") curl_url_set(url.get(), CURLUPART_PATH, path, 0);
  return part(url, CURLUPART_URL);
}

Answer::Verdict verdict_of(long status) {
  using Verdict = Answer::Verdict;
  if (status >= 200 && status < 300) return Verdict::delivered;
  switch (status) {
    case 401:
    case 403:
    case 407:
      return Verdict::refused;
    case 408:
    case 425:
    case 429:
      return Verdict::again;
    default:
      break;
  }
  if (status >= 500) return Verdict::again;
  // A redirection is not followed: the body would go where nobody has configured it to go.
  return status >= 400 ? Verdict::rejected : Verdict::refused;
}

std::size_t AnswerBody::write(char* from, std::size_t size, std::size_t count, void* self) {
  auto& body = *static_cast<AnswerBody*>(self);
  const std::size_t bytes = size * count;
  body.too_long_ = bytes > body.most_ - body.text_.size();
  if (body.too_long_) return 0;
  body.text_.append(from, bytes);
  return bytes;
}

void HttpConnection::must(CURLcode code) {
  if (code != CURLE_OK) {
    throw std::runtime_error(fmt::format("libcurl: {}", curl_easy_strerror(code)));
  }
}

HttpConnection::HttpConnection(HttpServer server)
    : server_(std::move(server)), error_(CURL_ERROR_SIZE, '\0') {
  must_be_readable("ca", server_.ca);
  must_be_readable("certificate", server_.certificate);
  must_be_readable("key", server_.key);
  read_token();
  static std::once_flag once;
  std::call_once(once, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
  handle_.reset(curl_easy_init());
  if (!handle_) throw std::runtime_error("libcurl cannot be started");
  set_up();
}

void HttpConnection::set_up() {
  const auto milliseconds = std::chrono::ceil<std::chrono::milliseconds>(server_.connect_timeout);
  set(CURLOPT_URL, server_.url.c_str());
  set(CURLOPT_PROTOCOLS_STR, "http,https");
  set(CURLOPT_USERAGENT, "millrace/" MILLRACE_VERSION);
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_QUICK_EXIT, 1L);  // a name server that says nothing does not hold up the end
  set(CURLOPT_POST, 1L);
  set(CURLOPT_ERRORBUFFER, error_.data());
  set(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(milliseconds.count()));
  set(CURLOPT_WRITEFUNCTION, &AnswerBody::write);
  set(CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
  if (!server_.ca.empty()) {
    set(CURLOPT_CAINFO, server_.ca.c_str());
    // Only this one, not the system's authorities as well.
    set(CURLOPT_CAPATH, static_cast<const char*>(nullptr));
  }
  if (!server_.certificate.empty()) {
    set(CURLOPT_SSLCERT, server_.certificate.c_str());
    set(CURLOPT_SSLKEY, server_.key.c_str());
  }
}

void HttpConnection::read_token() {
  std::string token = server_.token;
  if (!server_.token_file.empty()) {
    must_be_readable("token_file", server_.token_file);
    std::ifstream in(server_.token_file);
    in >> token;
    if (token.empty()) {
      throw ConfigError("token_file", fmt::format("'{}' holds no token", server_.token_file));
    }
  }
  if (!std::ranges::all_of(token, [](char c) { return c > ' ' && c <= '~'; })) {
    throw ConfigError(server_.token_file.empty() ? "token" : "token_file",
                      "a token holds a character other than printable ASCII");
  }
  token_ = std::move(token);
}

Answer HttpConnection::post(const std::vector<std::string>& headers, AnswerBody& body,
                            const std::function<std::string()>& why_none) {
  if (std::exchange(token_refused_, false)) {
    try {
      read_token();
    } catch (const std::exception& error) {
      token_refused_ = true;
      return {Answer::Verdict::refused, error.what(), {}};
    }
  }
  Headers list;
  for (const std::string& line : headers) list.add(line);
  if (!token_.empty()) list.add("Authorization: Bearer " + token_);
  set(CURLOPT_HTTPHEADER, list.get());
  set(CURLOPT_WRITEDATA, &body);
  error_[0] = '\0';
  const CURLcode code = curl_easy_perform(handle_.get());
  set(CURLOPT_HTTPHEADER, static_cast<curl_slist*>(nullptr));
  return judge(code, body, why_none);
}

Answer HttpConnection::judge(CURLcode code, const AnswerBody& body,
                             const std::function<std::string()>& why_none) {
  long status = 0;
  curl_easy_getinfo(handle_.get(), CURLINFO_RESPONSE_CODE, &status);
  // A server may answer, and close, before it has read what is sent: the answer counts.
  const bool answered =
      status >= 200 && (code == CURLE_OK || verdict_of(status) != Answer::Verdict::delivered);
  Answer answer;
  if (!answered) {
    std::string why = why_none();
    if (why.empty()) {
      why = error_[0] != '\0' ? printable(error_.c_str()) : curl_easy_strerror(code);
    }
    answer.verdict = verdict_without_answer(code);
    answer.reason = fmt::format("{}: {}", server_.url, why);
    return answer;
  }
  answer.verdict = verdict_of(status);
  if (answer.verdict == Answer::Verdict::delivered) return answer;
  const std::string text = printable(body.text());
  answer.reason =
      fmt::format("{} answered {}{}{}", server_.url, status, text.empty() ? "" : ": ", text);
  token_refused_ = answer.verdict == Answer::Verdict::refused && !server_.token_file.empty();
  curl_off_t seconds = 0;
  if (curl_easy_getinfo(handle_.get(), CURLINFO_RETRY_AFTER, &seconds) == CURLE_OK && seconds > 0) {
    const auto most = std::chrono::ceil<std::chrono::seconds>(server_.retry_after_max).count();
    answer.retry_after = std::min<Duration>(
        server_.retry_after_max, std::chrono::seconds(std::min<curl_off_t>(seconds, most)));
  }
  return answer;
}

}  // namespace millrace
