#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

#include "millrace/packet.h"

#include "byte_source.h"
#include "chunk_registry.h"
#include "upload.h"

namespace millrace {

/// Under which counter an upload goes.
enum class UploadCount : std::uint8_t {
  none,
  ok,
  duplicate,
  bad,
  too_large,
  unavailable,
  unauthorized,
  cut
};
inline constexpr std::size_t kUploadCounts = 8;

/// What is answered to a request.
struct Answer {
  unsigned status = 200;
  std::string json;
  std::string allow;         ///< 405: the methods there are
  bool retry_later = false;  ///< Retry-After
  bool challenge = false;    ///< WWW-Authenticate
  bool differs = false;      ///< a duplicate by its name, but not by its size
  bool close = false;        ///< the connection ends with this answer
  UploadCount count = UploadCount::none;
  std::string reason;  ///< of a refusal, for the log
};

/// What the headers of an upload say.
struct UploadHead {
  Origin origin;
  bool named = false;  ///< the client gave the chunk its name
  std::optional<Packing> packing;
};

/// Reads the values of the headers; `agent` and `chunk` may be missing, then a chunk id is made up.
/// Throws HeadError.
[[nodiscard]] UploadHead read_head(std::optional<std::string_view> agent,
                                   std::optional<std::string_view> chunk,
                                   std::string_view content_encoding);

/// Why an upload is refused by its headers.
class HeadError : public std::runtime_error {
 public:
  HeadError(unsigned status, const std::string& reason)
      : std::runtime_error(reason), status_(status) {}
  [[nodiscard]] unsigned status() const noexcept { return status_; }

 private:
  unsigned status_;
};

[[nodiscard]] Answer refusal(unsigned status, std::string reason, std::string_view chunk = {});
[[nodiscard]] Answer answer_to(const Origin& origin, const UploadResult& result);
[[nodiscard]] Answer answer_duplicate(const Origin& origin, ChunkRegistry::Counts counts,
                                      std::optional<std::uint64_t> size);

}  // namespace millrace
