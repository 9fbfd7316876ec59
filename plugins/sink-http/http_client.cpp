#include "http_client.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>

#include <unistd.h>

namespace millrace {

namespace {

constexpr std::size_t kMostAnswer = std::size_t{1} << 20U;

}  // namespace

/// One request: gives libcurl the file and ends it when nothing moves.
class HttpClient::Transfer {
 public:
  Transfer(int file, std::uint64_t size, const std::stop_token& stop, Duration silence)
      : file_(file), size_(size), stop_(stop), silence_(silence) {}

  [[nodiscard]] bool stopped() const { return stop_.stop_requested(); }
  [[nodiscard]] bool silent() const { return silent_; }
  [[nodiscard]] bool unreadable() const { return unreadable_; }

  static std::size_t read(char* to, std::size_t size, std::size_t count, void* self) {
    return static_cast<Transfer*>(self)->give({to, size * count});
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
  curl_off_t moved_ = 0;
  Clock::time_point since_ = Clock::now();
  bool silent_ = false;
  bool unreadable_ = false;
};

HttpClient::HttpClient(const UploadOptions& options)
    : agent_(agent_name(options)),
      silence_(options.answer_timeout),
      connection_(http_server(options)) {
  connection_.set(CURLOPT_NOPROGRESS, 0L);
  connection_.set(CURLOPT_READFUNCTION, &Transfer::read);
  connection_.set(CURLOPT_SEEKFUNCTION, &Transfer::seek);
  connection_.set(CURLOPT_XFERINFOFUNCTION, &Transfer::progress);
}

Answer HttpClient::send(const Chunk& chunk, int file, const std::stop_token& stop) {
  Transfer transfer(file, chunk.bytes, stop, silence_);
  AnswerBody body(kMostAnswer);
  connection_.set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(chunk.bytes));
  connection_.set(CURLOPT_READDATA, &transfer);
  connection_.set(CURLOPT_SEEKDATA, &transfer);
  connection_.set(CURLOPT_XFERINFODATA, &transfer);
  bool aborted = false;
  Answer answer = connection_.post(
      {"Content-Type: application/vnd.tcpdump.pcap", "Content-Encoding: zstd",
       "Millrace-Agent: " + agent_, "Millrace-Chunk: " + chunk.name.id},
      body, [&]() -> std::string {
        if (transfer.unreadable()) throw std::runtime_error("its file is shorter than it was");
        aborted = transfer.stopped();
        return transfer.silent() ? "no byte came or went for so long as 'answer_timeout' says" : "";
      });
  if (aborted) return {Answer::Verdict::aborted, {}, {}};
  return answer;
}

}  // namespace millrace
