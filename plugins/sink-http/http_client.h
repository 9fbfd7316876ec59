#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <stop_token>
#include <string>

#include "answer.h"
#include "chunk.h"
#include "options.h"

using CURL = void;

namespace millrace {

/// Sends chunks to a receiver (plugins/source-http/README.md) over a connection that is kept.
/// Threads: one at a time.
class HttpClient {
 public:
  /// Throws ConfigError where a file that an option names cannot be read.
  explicit HttpClient(const UploadOptions& options);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  /// `file` holds the chunk. Ends soon when `stop` is requested.
  [[nodiscard]] Answer send(const Chunk& chunk, int file, const std::stop_token& stop);

 private:
  class Transfer;
  struct Free {
    void operator()(CURL* handle) const;
  };
  void set_up();
  void read_token();
  [[nodiscard]] Answer judge(int code, const Transfer& transfer);

  const UploadOptions& options_;
  std::string url_;
  std::string agent_;
  std::string token_;
  bool token_refused_ = false;  ///< the file is read again before the next try
  std::unique_ptr<CURL, Free> handle_;
  std::string error_;
};

}  // namespace millrace
