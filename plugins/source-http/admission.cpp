#include "admission.h"

#include <string_view>

#include <fmt/format.h>

#include "millrace/json.h"

namespace millrace {

namespace {

namespace http = boost::beast::http;

std::string_view view(boost::beast::string_view text) { return {text.data(), text.size()}; }

std::optional<std::string_view> value_of(const RequestHeader& request, const char* name) {
  const auto found = request.find(name);
  if (found == request.end()) return std::nullopt;
  return view(found->value());
}

Answer not_allowed(const char* methods) {
  Answer answer = refusal(405, fmt::format("expected {}", methods));
  answer.allow = methods;
  answer.count = UploadCount::none;
  return answer;
}

bool blocked(const Hub& hub) { return hub.services.hand_over->blocked_for() > hub.options.blocked; }

Answer health(const Hub& hub) {
  Answer answer;
  const std::string reason = hub.draining ? "shutting down" : hub.unavailable();
  {
    json::Object object(answer.json);
    object.member("status", std::string_view(hub.draining     ? "draining"
                                             : reason.empty() ? "ok"
                                                              : "blocked"));
    if (!reason.empty()) object.member("reason", std::string_view(reason));
  }
  if (!reason.empty()) {
    answer.status = 503;
    answer.retry_later = true;
  }
  return answer;
}

}  // namespace

std::optional<Answer> answer_at_once(Hub& hub, const RequestHeader& request) {
  std::string_view path = view(request.target());
  path = path.substr(0, path.find('?'));
  if (path == "/v1/health") {
    return request.method() == http::verb::get ? health(hub) : not_allowed("GET");
  }
  if (path != "/v1/captures") {
    Answer answer = refusal(404, "there are /v1/captures and /v1/health");
    answer.count = UploadCount::none;
    return answer;
  }
  if (request.method() != http::verb::post) return not_allowed("POST");
  if (hub.tokens() && !hub.tokens()->admits(view(request[http::field::authorization]))) {
    return refusal(401, "a valid bearer token is needed");
  }
  return std::nullopt;
}

std::optional<Answer> refuse(Hub& hub, const RequestHeader& request, const BodyLength& length,
                             UploadHead& head) {
  if (!length.known && !length.chunked) {
    return refusal(411, "Content-Length or chunked transfer encoding is needed");
  }
  try {
    head = read_head(value_of(request, "Millrace-Agent"), value_of(request, "Millrace-Chunk"),
                     view(request[http::field::content_encoding]));
  } catch (const HeadError& error) {
    return refusal(error.status(), error.what());
  }
  const std::string_view chunk = head.origin.chunk;
  const std::uint64_t most = hub.options.max_body.bytes;
  if (length.known && length.bytes > most) {
    return refusal(413, fmt::format("the body is larger than {} bytes", most), chunk);
  }
  if (hub.draining) return refusal(503, "shutting down", chunk);
  if (blocked(hub)) {
    return refusal(503, "the stages after this one take nothing at present", chunk);
  }
  return std::nullopt;
}

}  // namespace millrace
