#pragma once

#include <cstdint>
#include <optional>

#include <boost/beast/http/fields.hpp>
#include <boost/beast/http/message.hpp>

#include "answer.h"
#include "hub.h"

namespace millrace {

using RequestHeader = boost::beast::http::header<true, boost::beast::http::fields>;

struct BodyLength {
  bool known = false;
  std::uint64_t bytes = 0;  ///< if known
  bool chunked = false;
};

/// The answer to everything but a POST of a capture by someone who may.
[[nodiscard]] std::optional<Answer> answer_at_once(Hub& hub, const RequestHeader& request);

/// Why the upload is not taken, as far as its headers tell. Fills in `head`, which without an agent
/// and a chunk has not been read.
[[nodiscard]] std::optional<Answer> refuse(Hub& hub, const RequestHeader& request,
                                           const BodyLength& length, UploadHead& head);

}  // namespace millrace
