#include "answer.h"

#include <algorithm>
#include <cctype>

#include <fmt/format.h>

#include "millrace/json.h"

#include "access.h"

namespace millrace {

namespace {

constexpr std::size_t kMostName = 128;

/// Agent and chunk become parts of keys and of log lines.
void check_name(std::string_view header, std::string_view value) {
  constexpr std::string_view kAlso = "-._:@/+=";
  const bool good =
      !value.empty() && value.size() <= kMostName && std::ranges::all_of(value, [&](char c) {
        return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
               kAlso.find(c) != std::string_view::npos;
      });
  if (good) return;
  throw HeadError(400, fmt::format("{} must be 1 to {} characters of A-Z, a-z, 0-9 and {}", header,
                                   kMostName, kAlso));
}

UploadCount count_of(unsigned status) {
  switch (status) {
    case 401:
      return UploadCount::unauthorized;
    case 413:
      return UploadCount::too_large;
    case 429:
    case 503:
      return UploadCount::unavailable;
    default:
      return UploadCount::bad;
  }
}

}  // namespace

UploadHead read_head(std::optional<std::string_view> agent, std::optional<std::string_view> chunk,
                     std::string_view content_encoding) {
  UploadHead head;
  if (agent) {
    check_name("Millrace-Agent", *agent);
    head.origin.agent = *agent;
  }
  if (chunk) {
    check_name("Millrace-Chunk", *chunk);
    head.origin.chunk = *chunk;
    head.named = true;
  } else {
    head.origin.chunk = random_id();
  }
  std::string encoding(content_encoding);
  std::ranges::transform(encoding, encoding.begin(), [](char c) {
    return static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  });
  if (encoding == "gzip" || encoding == "x-gzip") {
    head.packing = Packing::gzip;
  } else if (encoding == "zstd") {
    head.packing = Packing::zstd;
  } else if (!encoding.empty() && encoding != "identity") {
    throw HeadError(415, "Content-Encoding may be gzip, zstd or identity");
  }
  return head;
}

Answer refusal(unsigned status, std::string reason, std::string_view chunk) {
  Answer answer;
  answer.status = status;
  {
    json::Object object(answer.json);
    object.member("error", std::string_view(reason));
    if (!chunk.empty()) object.member("chunk", chunk);
  }
  answer.retry_later = status == 429 || status == 503;
  answer.challenge = status == 401;
  answer.count = count_of(status);
  answer.reason = std::move(reason);
  return answer;
}

Answer answer_to(const Origin& origin, const UploadResult& result) {
  Answer answer;
  switch (result.ending) {
    case Ending::ok:
      answer.count = UploadCount::ok;
      {
        json::Object object(answer.json);
        object.member("chunk", std::string_view(origin.chunk));
        object.member("packets", result.packets);
        object.member("bytes", result.bytes);
        if (result.offset) {
          object.member("offset", *result.offset);
          object.member("lost", result.lost);
        }
      }
      return answer;
    case Ending::bad:
      answer.status = 400;
      break;
    case Ending::too_large:
      answer.status = 413;
      break;
    case Ending::unavailable:
      answer.status = 503;
      break;
    case Ending::cut:
      answer.status = 408;
      break;
  }
  {
    json::Object object(answer.json);
    object.member("error", std::string_view(result.reason));
    object.member("chunk", std::string_view(origin.chunk));
    if (result.ending != Ending::unavailable) object.member("packets", result.packets);
  }
  answer.retry_later = result.ending == Ending::unavailable;
  answer.count = result.ending == Ending::cut ? UploadCount::cut : count_of(answer.status);
  answer.close = result.ending == Ending::cut;
  answer.reason = result.reason;
  return answer;
}

Answer answer_duplicate(const Origin& origin, ChunkRegistry::Counts counts,
                        std::optional<std::uint64_t> size) {
  Answer answer;
  answer.differs = size && *size != counts.bytes;
  answer.count = UploadCount::duplicate;
  {
    json::Object object(answer.json);
    object.member("chunk", std::string_view(origin.chunk));
    object.member("packets", counts.packets);
    object.member("bytes", counts.bytes);
    object.member("duplicate", true);
    if (answer.differs) object.member("differs", true);
  }
  if (answer.differs) {
    answer.reason = fmt::format(
        "a chunk of this name with {} bytes was delivered before, this one has {}; chunks must "
        "have names of their own",
        counts.bytes, *size);
  }
  return answer;
}

}  // namespace millrace
