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
      truncated_(&context.counter("truncated-records")) {
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

Hub::Place::Place(Hub& hub)
    : hub_(hub), taken_(hub.uploads_.fetch_add(1) < hub.options.max_uploads) {
  if (!taken_) --hub_.uploads_;
}

Hub::Place::~Place() {
  if (taken_) --hub_.uploads_;
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
  if (answer.count == UploadCount::ok || answer.count == UploadCount::duplicate) return;
  warn(origin == nullptr
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
