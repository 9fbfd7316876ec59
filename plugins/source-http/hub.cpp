#include "hub.h"

#include <utility>

#include <fmt/format.h>

namespace millrace {

Hub::Hub(const HttpOptions& given, Context& context)
    : options(given),
      services{std::make_shared<HandOver>(given.hand_over),
               std::make_shared<ChunkRegistry>(given.agents, given.remember),
               std::make_shared<Unresolved>(0)},
      parsers(given.max_uploads),
      context_(context),
      packets_(&context.counter("packets")),
      bytes_(&context.counter("bytes")),
      connected_(&context.counter("connections")),
      truncated_(&context.counter("truncated-records")),
      differing_(&context.counter("duplicate-differs")),
      places_(&context.condition("uploads")),
      next_stage_(&context.condition("next-stage")),
      refusals_(context) {
  constexpr std::array<const char*, kUploadCounts> kNames{nullptr,
                                                          "uploads-ok",
                                                          "uploads-duplicate",
                                                          "uploads-bad",
                                                          "uploads-too-large",
                                                          "uploads-unavailable",
                                                          "uploads-unauthorized",
                                                          "uploads-cut"};
  for (std::size_t i = 1; i < kUploadCounts; ++i) counts_[i] = &context.counter(kNames[i]);
  if (!options.tokens.empty()) tokens_ = Tokens::read(options.tokens);
}

Upload::Settings Hub::upload_settings() const {
  return {options.buffer.bytes, options.max_unpacked.bytes, options.batch,
          options.batch_bytes.bytes, options.blocked};
}

Hub::Request::Request(Hub& hub, Connections::Line& line)
    : hub_(hub), line_(line), good_(hub.connections.busy(line)) {
  ++hub_.uploads_;
}

Hub::Request::~Request() {
  if (place_) hub_.connections.give_back_place(line_);
  if (waits_) --hub_.waiting_;
  hub_.connections.waits(line_);
  --hub_.uploads_;
}

bool Hub::Request::take_place() {
  if (place_ || !hub_.connections.take_place(line_)) return place_;
  return place_ = true;
}

bool Hub::Request::may_wait() {
  if (waits_) return true;
  if (hub_.waiting_.fetch_add(1) >= hub_.options.max_uploads) {
    --hub_.waiting_;
    return false;
  }
  return waits_ = true;
}

void Hub::Request::refused() {
  if (!place_) hub_.connections.waits(line_);
}

std::string Hub::unavailable() const {
  if (services.hand_over->blocked_for() > options.blocked) {
    return "the stages after this one take nothing at present";
  }
  const auto since = connections.full_since();
  const auto now = std::chrono::steady_clock::now();
  if (since != decltype(since){} && now - since > options.blocked) {
    return fmt::format("all {} places for uploads have been taken for {:.0f} s",
                       options.max_uploads, std::chrono::duration<double>(now - since).count());
  }
  return context_.not_ready();
}

void Hub::look() {
  const Duration blocked = services.hand_over->blocked_for();
  if (blocked > options.blocked) {
    next_stage_->fails("the next stage takes no packets", Condition::Grace::none);
  } else if (blocked == Duration(0)) {
    next_stage_->holds();
  }
  const auto since = connections.full_since();
  if (since == decltype(since){}) {
    places_->holds();
  } else if (std::chrono::steady_clock::now() - since > options.blocked) {
    places_->fails(fmt::format("all {} places for uploads are taken", options.max_uploads),
                   Condition::Grace::none);
  }
  refusals_.tell(false);
}

void Hub::sum_up() {
  refusals_.tell(true);
  std::uint64_t all = 0;
  std::string kinds;
  for (const auto& [count, name] :
       {std::pair{UploadCount::unavailable, "unavailable"}, std::pair{UploadCount::bad, "bad"},
        std::pair{UploadCount::too_large, "too large"},
        std::pair{UploadCount::unauthorized, "unauthorized"},
        std::pair{UploadCount::cut, "cut off"}}) {
    const std::uint64_t n = counts_[static_cast<std::size_t>(count)]->value();
    if (n == 0) continue;
    all += n;
    kinds += fmt::format("{}{} {}", kinds.empty() ? "" : ", ", n, name);
  }
  if (all != 0) {
    context_.warning(
        fmt::format("{} uploads were refused or not finished ({}); what their agents "
                    "sent again counts as well",
                    all, kinds));
  }
}

void Hub::watch(const std::shared_ptr<Upload>& upload) {
  {
    const std::lock_guard lock(mutex_);
    std::erase_if(watched_, [](const auto& other) { return other.expired(); });
    watched_.push_back(upload);
  }
  // Whoever set `over` before has not seen this one.
  if (over) upload->give_up(UploadError(Ending::unavailable, "shutting down"), true);
}

void Hub::give_up_all() {
  over = true;
  std::vector<std::weak_ptr<Upload>> all;
  {
    const std::lock_guard lock(mutex_);
    all = watched_;
  }
  for (const auto& one : all) {
    if (const auto upload = one.lock()) {
      upload->give_up(UploadError(Ending::unavailable, "shutting down"), true);
    }
  }
}

void Hub::record(const Answer& answer, const UploadResult* result, const std::string& peer,
                 const Origin* origin) {
  if (answer.count == UploadCount::none) return;
  counts_[static_cast<std::size_t>(answer.count)]->add();
  if (result != nullptr && answer.count == UploadCount::ok) {
    packets_->add(result->packets);
    bytes_->add(result->bytes);
    if (result->offset) truncated_->add();
  }
  if (answer.differs) {
    differing_->add();
    refusals_.add(answer.status, fmt::format("agent '{}' at {}", origin->agent, peer),
                  answer.reason,
                  fmt::format("upload from {}, agent '{}', chunk '{}', not taken: {}", peer,
                              origin->agent, origin->chunk, answer.reason));
    return;
  }
  if (answer.count == UploadCount::ok || answer.count == UploadCount::duplicate) return;
  refusals_.add(
      answer.status,
      origin == nullptr ? peer : fmt::format("agent '{}' at {}", origin->agent, peer),
      answer.reason,
      origin == nullptr
          ? fmt::format("upload from {} refused, {}: {}", peer, answer.status, answer.reason)
          : fmt::format("upload from {}, agent '{}', chunk '{}', refused, {}: {}", peer,
                        origin->agent, origin->chunk, answer.status, answer.reason));
}

void Hub::warn(const std::string& message) {
  constexpr std::uint64_t kMostASecond = 10;
  std::uint64_t left_out = 0;
  {
    const std::lock_guard lock(log_mutex_);
    const auto now = std::chrono::steady_clock::now();
    if (now - log_second_ >= std::chrono::seconds(1)) {
      log_second_ = now;
      left_out = logged_ > kMostASecond ? logged_ - kMostASecond : 0;
      logged_ = 0;
    }
    if (++logged_ > kMostASecond) return;
  }
  if (left_out != 0) context_.warning(fmt::format("{} more messages like these", left_out));
  context_.warning(message);
}

}  // namespace millrace
