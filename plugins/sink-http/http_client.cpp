#include "http_client.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <mutex>
#include <system_error>

#include <curl/curl.h>
#include <fmt/format.h>
#include <unistd.h>

namespace millrace {

namespace {

constexpr std::size_t kMostReason = 4096;
constexpr std::size_t kMostAnswer = std::size_t{1} << 20U;

template <class T>
void set(CURL* handle, CURLoption option, T value) {
  const CURLcode code = curl_easy_setopt(handle, option, value);
  if (code != CURLE_OK) {
    throw std::runtime_error(fmt::format("libcurl: {}", curl_easy_strerror(code)));
  }
}

void must_be_readable(const char* option, const std::string& path) {
  if (path.empty() || ::access(path.c_str(), R_OK) == 0) return;
  const std::error_code error(errno, std::system_category());
  throw ConfigError(option, fmt::format("cannot read '{}': {}", path, error.message()));
}

std::string printable(std::string text) {
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

Answer::Verdict verdict_without_answer(int code) {
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

/// One request: gives libcurl the file, takes the answer, and ends it when nothing moves.
class HttpClient::Transfer {
 public:
  Transfer(int file, std::uint64_t size, const std::stop_token& stop, Duration silence)
      : file_(file), size_(size), stop_(stop), silence_(silence) {}

  [[nodiscard]] const std::string& answer() const { return answer_; }
  [[nodiscard]] bool stopped() const { return stop_.stop_requested(); }
  [[nodiscard]] bool silent() const { return silent_; }
  [[nodiscard]] bool unreadable() const { return unreadable_; }

  static std::size_t read(char* to, std::size_t size, std::size_t count, void* self) {
    return static_cast<Transfer*>(self)->give({to, size * count});
  }
  static std::size_t write(char* from, std::size_t size, std::size_t count, void* self) {
    return static_cast<Transfer*>(self)->take({from, size * count});
  }
  static int seek(void* self, curl_off_t offset, int origin) {
    if (origin != SEEK_SET) return CURL_SEEKFUNC_CANTSEEK;
    static_cast<Transfer*>(self)->at_ = static_cast<std::uint64_t>(offset);
    return CURL_SEEKFUNC_OK;
  }
  static int progress(void* self, curl_off_t /*most_down*/, curl_off_t down, curl_off_t /*most_up*/,
                      curl_off_t up) {
    return static_cast<Transfer*>(self)->goes_on(down + up) ? 0 : 1;
  }

 private:
  using Clock = std::chrono::steady_clock;

  std::size_t give(std::span<char> to) {
    const std::size_t most = std::min<std::uint64_t>(to.size(), size_ - std::min(at_, size_));
    if (most == 0) return 0;
    ssize_t got = 0;
    do {
      got = ::pread(file_, to.data(), most, static_cast<off_t>(at_));
    } while (got < 0 && errno == EINTR);
    if (got <= 0) {
      unreadable_ = true;
      return CURL_READFUNC_ABORT;
    }
    at_ += static_cast<std::uint64_t>(got);
    return static_cast<std::size_t>(got);
  }

  std::size_t take(std::span<const char> from) {
    const std::size_t room = kMostReason - std::min(kMostReason, answer_.size());
    answer_.append(from.data(), std::min(room, from.size()));
    answered_ += from.size();
    return answered_ > kMostAnswer ? 0 : from.size();
  }

  bool goes_on(curl_off_t moved) {
    const auto now = Clock::now();
    if (moved != moved_) {
      moved_ = moved;
      since_ = now;
    }
    silent_ = now - since_ > silence_;
    return !silent_ && !stopped();
  }

  int file_;
  std::uint64_t size_;
  const std::stop_token& stop_;
  Duration silence_;
  std::uint64_t at_ = 0;
  std::string answer_;
  std::size_t answered_ = 0;
  curl_off_t moved_ = 0;
  Clock::time_point since_ = Clock::now();
  bool silent_ = false;
  bool unreadable_ = false;
};

void HttpClient::Free::operator()(CURL* handle) const { curl_easy_cleanup(handle); }

HttpClient::HttpClient(const UploadOptions& options)
    : options_(options),
      url_(upload_url(options.url)),
      agent_(agent_name(options)),
      token_(options.token),
      error_(CURL_ERROR_SIZE, '\0') {
  must_be_readable("ca", options.ca);
  must_be_readable("certificate", options.certificate);
  must_be_readable("key", options.key);
  read_token();
  static std::once_flag once;
  std::call_once(once, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
  handle_.reset(curl_easy_init());
  if (!handle_) throw std::runtime_error("libcurl cannot be started");
  set_up();
}

HttpClient::~HttpClient() = default;

void HttpClient::set_up() {
  CURL* const curl = handle_.get();
  const auto milliseconds = std::chrono::ceil<std::chrono::milliseconds>(options_.connect_timeout);
  set(curl, CURLOPT_URL, url_.c_str());
  set(curl, CURLOPT_PROTOCOLS_STR, "http,https");
  set(curl, CURLOPT_USERAGENT, "millrace/" MILLRACE_VERSION);
  set(curl, CURLOPT_NOSIGNAL, 1L);
  set(curl, CURLOPT_POST, 1L);
  set(curl, CURLOPT_ERRORBUFFER, error_.data());
  set(curl, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(milliseconds.count()));
  set(curl, CURLOPT_NOPROGRESS, 0L);
  set(curl, CURLOPT_READFUNCTION, &Transfer::read);
  set(curl, CURLOPT_SEEKFUNCTION, &Transfer::seek);
  set(curl, CURLOPT_WRITEFUNCTION, &Transfer::write);
  set(curl, CURLOPT_XFERINFOFUNCTION, &Transfer::progress);
  set(curl, CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
  if (!options_.ca.empty()) {
    set(curl, CURLOPT_CAINFO, options_.ca.c_str());
    // Only this one, not the system's authorities as well.
    set(curl, CURLOPT_CAPATH, static_cast<const char*>(nullptr));
  }
  if (!options_.certificate.empty()) {
    set(curl, CURLOPT_SSLCERT, options_.certificate.c_str());
    set(curl, CURLOPT_SSLKEY, options_.key.c_str());
  }
}

void HttpClient::read_token() {
  std::string token = options_.token;
  if (!options_.token_file.empty()) {
    must_be_readable("token_file", options_.token_file);
    std::ifstream in(options_.token_file);
    in >> token;
    if (token.empty()) {
      throw ConfigError("token_file", fmt::format("'{}' holds no token", options_.token_file));
    }
  }
  if (!std::ranges::all_of(token, [](char c) { return c > ' ' && c <= '~'; })) {
    throw ConfigError(options_.token_file.empty() ? "token" : "token_file",
                      "a token holds a character other than printable ASCII");
  }
  token_ = std::move(token);
}

Answer HttpClient::send(const Chunk& chunk, int file, const std::stop_token& stop) {
  if (std::exchange(token_refused_, false)) {
    try {
      read_token();
    } catch (const std::exception& error) {
      token_refused_ = true;
      return {Answer::Verdict::refused, error.what(), {}};
    }
  }
  CURL* const curl = handle_.get();
  Headers headers;
  headers.add("Content-Type: application/vnd.tcpdump.pcap");
  headers.add("Content-Encoding: zstd");
  headers.add("Millrace-Agent: " + agent_);
  headers.add("Millrace-Chunk: " + chunk.name.id);
  if (!token_.empty()) headers.add("Authorization: Bearer " + token_);
  Transfer transfer(file, chunk.bytes, stop, options_.answer_timeout);
  set(curl, CURLOPT_HTTPHEADER, headers.get());
  set(curl, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(chunk.bytes));
  set(curl, CURLOPT_READDATA, &transfer);
  set(curl, CURLOPT_SEEKDATA, &transfer);
  set(curl, CURLOPT_WRITEDATA, &transfer);
  set(curl, CURLOPT_XFERINFODATA, &transfer);
  error_[0] = '\0';
  const CURLcode code = curl_easy_perform(curl);
  set(curl, CURLOPT_HTTPHEADER, static_cast<curl_slist*>(nullptr));
  return judge(code, transfer);
}

Answer HttpClient::judge(int code, const Transfer& transfer) {
  long status = 0;
  curl_easy_getinfo(handle_.get(), CURLINFO_RESPONSE_CODE, &status);
  // A server may answer, and close, before it has read the body: the answer counts.
  const bool answered =
      status >= 200 && (code == CURLE_OK || verdict_of(status) != Answer::Verdict::delivered);
  Answer answer;
  if (!answered) {
    if (transfer.unreadable()) throw std::runtime_error("its file is shorter than it was");
    if (transfer.stopped()) return {Answer::Verdict::aborted, {}, {}};
    const std::string what = transfer.silent()
                                 ? "no byte came or went for so long as 'answer_timeout' says"
                             : error_[0] != '\0' ? printable(error_.c_str())
                                                 : curl_easy_strerror(static_cast<CURLcode>(code));
    answer.verdict = verdict_without_answer(code);
    answer.reason = fmt::format("{}: {}", url_, what);
    return answer;
  }
  answer.verdict = verdict_of(status);
  if (answer.verdict == Answer::Verdict::delivered) return answer;
  answer.reason = fmt::format("{} answered {}{}{}", url_, status,
                              transfer.answer().empty() ? "" : ": ", printable(transfer.answer()));
  token_refused_ = answer.verdict == Answer::Verdict::refused && !options_.token_file.empty();
  curl_off_t seconds = 0;
  if (curl_easy_getinfo(handle_.get(), CURLINFO_RETRY_AFTER, &seconds) == CURLE_OK && seconds > 0) {
    const auto most = std::chrono::ceil<std::chrono::seconds>(options_.retry_after_max).count();
    answer.retry_after = std::min<Duration>(
        options_.retry_after_max, std::chrono::seconds(std::min<curl_off_t>(seconds, most)));
  }
  return answer;
}

}  // namespace millrace
