#include "upload.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "capture_reader.h"
#include "packet_batcher.h"

namespace millrace {

namespace {

constexpr std::uint32_t kSnaplen = 262144;
/// RFC 8878 (3.1.1.1.2) asks decoders for 8 MiB and no more.
constexpr int kZstdWindow = 23;
constexpr const char* kName = "the capture";
constexpr const char* kFailed = "a later stage failed to take the packets";

std::string_view name_of(Packing packing) {
  switch (packing) {
    case Packing::gzip:
      return "gzip";
    case Packing::zstd:
      return "zstd";
    case Packing::none:
      break;
  }
  return "identity";
}

/// Counts what is unpacked and ends it at a limit.
class Limited final : public ByteSource {
 public:
  Limited(std::unique_ptr<ByteSource> bytes, std::uint64_t most, std::uint64_t& count)
      : bytes_(std::move(bytes)), most_(most), count_(count) {}

  std::size_t read(std::span<std::byte> to) override {
    if (error_) std::rethrow_exception(error_);
    std::size_t got = 0;
    // What comes before an error is not lost with it.
    try {
      while (got < to.size()) {
        const std::size_t more = bytes_->read(to.subspan(got));
        if (more == 0) break;
        got += more;
      }
    } catch (...) {
      if (got == 0) throw;
      error_ = std::current_exception();
    }
    count_ += got;
    if (count_ > most_) {
      throw UploadError(Ending::too_large,
                        fmt::format("the unpacked capture is larger than {} bytes", most_));
    }
    return got;
  }
  [[nodiscard]] std::uint64_t raw_position() const override { return bytes_->raw_position(); }
  [[nodiscard]] bool cut_off() const override { return bytes_->cut_off(); }

 private:
  std::unique_ptr<ByteSource> bytes_;
  std::uint64_t most_;
  std::uint64_t& count_;
  std::exception_ptr error_;
};

std::string hexadecimal(std::span<const std::byte> bytes) {
  std::string text;
  for (const std::byte byte : bytes) {
    text += fmt::format("{}{:02x}", text.empty() ? "" : " ", std::to_integer<unsigned>(byte));
  }
  return text;
}

}  // namespace

/// Gives the batches of a reader their origin, numbers and receipts, and hands them over.
class PacketStamp final : public Downstream {
 public:
  explicit PacketStamp(Upload& upload) : upload_(upload) {}

  void push(BatchBase& base) override {
    auto& batch = static_cast<Batch<Packet>&>(base);
    constexpr std::uint64_t kMost = std::numeric_limits<std::uint32_t>::max();
    if (upload_.packets_ + batch.items.size() > kMost) {
      throw UploadError(Ending::too_large, fmt::format("more than {} packets in a chunk", kMost));
    }
    tighten(batch);
    std::uint64_t number = upload_.packets_;
    for (Packet& packet : batch.items) {
      packet.number = static_cast<std::uint32_t>(number++);
      packet.origin = upload_.origin_.get();
    }
    batch.storage = detail::join_storage(std::move(batch.storage), upload_.origin_);
    batch.receipt = upload_.issue();
    if (!upload_.services_.hand_over->put(batch, upload_.settings_.blocked, upload_.stopped_)) {
      throw UploadError(Ending::unavailable, "the stages after this one take nothing at present");
    }
    upload_.packets_ = number;
  }

 private:
  /// A small batch gets storage of its size, so that what waits in queues is what it weighs.
  static void tighten(Batch<Packet>& batch) {
    std::size_t size = 0;
    for (const Packet& packet : batch.items) size += packet.captured;
    if (size > batch.storage_bytes / 2) return;
    auto bytes = std::make_shared<std::vector<std::byte>>(size);
    std::byte* to = bytes->data();
    for (Packet& packet : batch.items) {
      if (packet.captured != 0) std::memcpy(to, packet.data, packet.captured);
      packet.data = to;
      to += packet.captured;
    }
    batch.storage = std::move(bytes);
    batch.storage_bytes = size;
  }

  Upload& upload_;
};

Upload::Upload(Origin origin, std::uint64_t ticket, std::optional<Packing> packing,
               const Settings& settings, Services services, std::shared_ptr<Wakeup> wakeup)
    : origin_(std::make_shared<const Origin>(std::move(origin))),
      ticket_(ticket),
      packing_(packing),
      settings_(settings),
      services_(std::move(services)),
      wakeup_(std::move(wakeup)),
      body_(settings.buffer, wakeup_) {}

Receipt Upload::issue() {
  {
    const std::lock_guard lock(mutex_);
    ++shares_;
  }
  ++*services_.unresolved;
  return Receipt::make([self = shared_from_this()](Outcome outcome) noexcept {
    self->resolved(outcome);
    --*self->services_.unresolved;
  });
}

void Upload::parse() noexcept {
  UploadResult parsed;
  try {
    parse_body();
  } catch (const UploadError& error) {
    parsed.ending = error.ending();
    parsed.reason = error.what();
  } catch (const std::runtime_error& error) {
    parsed.ending = Ending::bad;
    parsed.reason = error.what();
  } catch (const std::exception& error) {
    parsed.ending = Ending::unavailable;
    parsed.reason = error.what();
  }
  // Nothing will be better by waiting for the receipts that are open.
  if (parsed.ending == Ending::unavailable) {
    give_up(UploadError(parsed.ending, parsed.reason), false);
  }
  const std::uint64_t taken = body_.taken();
  {
    const std::lock_guard lock(mutex_);
    parsed_.ending = parsed.ending;
    parsed_.reason = std::move(parsed.reason);
    parsed_.packets = packets_;
    parsed_.bytes = taken;
  }
  settle_share();
}

void Upload::parse_body() {
  Unpacked unpacked = unpack(kName, std::make_unique<PipeSource>(body_), kZstdWindow);
  if (packing_ && *packing_ != unpacked.packing) {
    throw UploadError(Ending::bad,
                      fmt::format("Content-Encoding says {}, but at byte 0 the body is {}",
                                  name_of(*packing_), name_of(unpacked.packing)));
  }
  std::unique_ptr<ByteSource> bytes =
      std::make_unique<Limited>(std::move(unpacked.bytes), settings_.max_unpacked, unpacked_);
  std::array<std::byte, 8> head{};
  const std::span<const std::byte> found = std::span(head).first(read_fully(*bytes, head));
  if (found.empty()) throw UploadError(Ending::bad, "the body is empty");
  std::unique_ptr<CaptureReader> reader;
  try {
    reader = read_capture(kName, kSnaplen, with_head(found, std::move(bytes)));
  } catch (const UploadError&) {
    throw;
  } catch (const std::runtime_error& error) {
    throw UploadError(Ending::bad,
                      fmt::format("{}; found at byte 0: {}", error.what(), hexadecimal(found)));
  }
  PacketStamp stamp(*this);
  Output<Packet> out(stamp);
  PacketBatcher batcher(settings_.batch, settings_.batch_bytes);
  Gate gate(0, {});
  while (reader->step(out, batcher, gate) == CaptureReader::Step::more) {
    if (stopped_) throw UploadError(Ending::unavailable, kFailed);
  }
  const Census& census = gate.census();
  if (census.packets() != 0 && census.of_unknown_link() == census.packets()) {
    throw UploadError(Ending::bad, fmt::format("none of the {} packets can be decoded: {}",
                                               census.packets(), census.unknown_links()));
  }
  // What may follow compressed data.
  std::array<std::byte, 4096> rest{};
  while (body_.read(rest) != 0) {
  }
  if (const auto offset = reader->cut_off_at()) {
    const std::lock_guard lock(mutex_);
    parsed_.offset = offset;
    parsed_.lost = unpacked_ > *offset ? unpacked_ - *offset : 0;
  }
}

void Upload::resolved(Outcome outcome) noexcept {
  if (outcome == Outcome::failed) {
    {
      const std::lock_guard lock(mutex_);
      failed_ = true;
    }
    // What is still to come will be sent again anyway.
    give_up(UploadError(Ending::unavailable, kFailed), false);
  }
  settle_share();
}

void Upload::settle_share() {
  UploadResult result;
  {
    const std::lock_guard lock(mutex_);
    if (--shares_ != 0) return;
    result = parsed_;
    if (failed_ && result.ending != Ending::cut) {
      result.ending = Ending::unavailable;
      result.reason = kFailed;
    }
  }
  // Before the client can hear of it, so that a chunk it sends again finds this one done.
  if (ticket_ != 0 && result.ending == Ending::ok) {
    services_.chunks->finish(*origin_, ticket_, {result.packets, result.bytes});
  } else {
    services_.chunks->release(*origin_, ticket_);
  }
  {
    const std::lock_guard lock(mutex_);
    if (!result_) result_ = std::move(result);
  }
  wakeup_->wake();
}

std::optional<UploadResult> Upload::result() const {
  const std::lock_guard lock(mutex_);
  return result_;
}

void Upload::give_up(const UploadError& error, bool release) {
  {
    const std::lock_guard lock(mutex_);
    if (result_) return;
    result_ = parsed_;
    result_->ending = error.ending();
    result_->reason = error.what();
  }
  stopped_ = true;
  body_.fail(error);
  if (release) services_.chunks->release(*origin_, ticket_);
  wakeup_->wake();
}

}  // namespace millrace
