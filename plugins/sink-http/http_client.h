#pragma once

#include <stop_token>
#include <string>

#include "answer.h"
#include "chunk.h"
#include "http_connection.h"
#include "options.h"

namespace millrace {

/// Sends chunks to a receiver (plugins/source-http/README.md) over a connection that is kept.
/// Threads: one at a time.
class HttpClient {
 public:
  /// Throws ConfigError where a file that an option names cannot be read.
  explicit HttpClient(const UploadOptions& options);

  /// `file` holds the chunk. Ends soon when `stop` is requested.
  [[nodiscard]] Answer send(const Chunk& chunk, int file, const std::stop_token& stop);

 private:
  class Transfer;

  std::string agent_;
  Duration silence_;
  HttpConnection connection_;
};

}  // namespace millrace
