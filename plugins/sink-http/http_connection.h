#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <curl/curl.h>

#include "millrace/plugin.h"
#include "millrace/time.h"

#include "answer.h"

namespace millrace {

/// A server and how it is spoken to, as options of these names say.
struct HttpServer {
  std::string url;
  std::string token;
  std::string token_file;
  std::string ca;
  std::string certificate;
  std::string key;
  Duration connect_timeout{};
  Duration retry_after_max{};
};

/// What is wrong with options that are each valid alone.
void check_http_server(const HttpServer& server, Findings& findings);

/// The URL, with `path` where it names none.
[[nodiscard]] std::string url_with_path(const std::string& url, const char* path);

/// Takes the body of an answer.
class AnswerBody {
 public:
  /// Ends the request when there are more than `most` bytes.
  explicit AnswerBody(std::size_t most) : most_(most) {}

  [[nodiscard]] const std::string& text() const { return text_; }
  [[nodiscard]] bool too_long() const { return too_long_; }
  /// For CURLOPT_WRITEFUNCTION; `self` is the AnswerBody.
  static std::size_t write(char* from, std::size_t size, std::size_t count, void* self);

 private:
  std::size_t most_;
  std::string text_;
  bool too_long_ = false;
};

/// Posts to a server over a connection that is kept. What is sent, and progress if it is of
/// interest, is set up on the handle by its owner. Threads: one at a time.
class HttpConnection {
 public:
  /// Throws ConfigError where a file that an option names cannot be read.
  explicit HttpConnection(HttpServer server);
  HttpConnection(const HttpConnection&) = delete;
  HttpConnection& operator=(const HttpConnection&) = delete;

  template <class T>
  void set(CURLoption option, T value) {
    must(curl_easy_setopt(handle_.get(), option, value));
  }

  /// A token that was refused is read again before; with the server's token the header lines are
  /// complete. `why_none` is asked when there was no answer: what it says, if anything, explains
  /// that better than libcurl can.
  [[nodiscard]] Answer post(const std::vector<std::string>& headers, AnswerBody& body,
                            const std::function<std::string()>& why_none);

 private:
  struct Free {
    void operator()(CURL* handle) const { curl_easy_cleanup(handle); }
  };
  static void must(CURLcode code);
  void set_up();
  void read_token();
  [[nodiscard]] Answer judge(CURLcode code, const AnswerBody& body,
                             const std::function<std::string()>& why_none);

  HttpServer server_;
  std::string token_;
  bool token_refused_ = false;  ///< the file is read again before the next try
  std::unique_ptr<CURL, Free> handle_;
  std::string error_;
};

}  // namespace millrace
