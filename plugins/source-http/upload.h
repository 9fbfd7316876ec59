#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "millrace/packet.h"

#include "body_pipe.h"
#include "byte_source.h"
#include "chunk_registry.h"
#include "hand_over.h"

namespace millrace {

/// What became of an upload.
struct UploadResult {
  Ending ending = Ending::ok;
  std::string reason;         ///< unless ok
  std::uint64_t packets = 0;  ///< given on
  std::uint64_t bytes = 0;    ///< of the body, as it came
  /// The capture breaks off inside the record that begins at this byte of the unpacked data.
  std::optional<std::uint64_t> offset;
  std::uint64_t lost = 0;  ///< bytes from there to the end
};

/// Receipts that uploads have given out and that are not resolved.
using Unresolved = std::atomic<std::uint64_t>;

/// One capture on its way from a connection through a parser to the receipts of its batches.
///
/// It lives until the last of these is resolved, which may be after the server has gone.
class Upload : public std::enable_shared_from_this<Upload> {
 public:
  struct Settings {
    std::size_t buffer = 0;
    std::uint64_t max_unpacked = 0;
    std::size_t batch = 0;
    std::size_t batch_bytes = 0;
    Duration blocked{};
  };
  struct Services {
    std::shared_ptr<HandOver> hand_over;
    std::shared_ptr<ChunkRegistry> chunks;
    std::shared_ptr<Unresolved> unresolved;
  };

  /// `ticket` is the claim on the chunk, 0 if nobody else can know its name. `packing` is what the
  /// client says of the body, if it says anything. `wakeup` is woken when there is a result or room
  /// in the pipe.
  Upload(Origin origin, std::uint64_t ticket, std::optional<Packing> packing,
         const Settings& settings, Services services, std::shared_ptr<Wakeup> wakeup);

  [[nodiscard]] const Origin& origin() const { return *origin_; }
  [[nodiscard]] BodyPipe& body() { return body_; }

  /// Parses the body and hands its packets over; on a parser's thread, once.
  void parse() noexcept;

  /// There as soon as the body is parsed and every receipt is resolved, or one has failed, or the
  /// upload was given up.
  [[nodiscard]] std::optional<UploadResult> result() const;
  /// The result is this, unless there is one already. Packets that were handed over go their way;
  /// if all is delivered in the end, the chunk counts as delivered. `release`: the chunk may be
  /// tried again at once, without waiting for that.
  void give_up(const UploadError& error, bool release);

 private:
  friend class PacketStamp;

  [[nodiscard]] Receipt issue();
  void parse_body();
  /// Ends one share: that of the parser, or of a receipt.
  void resolved(Outcome outcome) noexcept;
  void settle_share();

  const std::shared_ptr<const Origin> origin_;
  const std::uint64_t ticket_;
  const std::optional<Packing> packing_;
  const Settings settings_;
  const Services services_;
  const std::shared_ptr<Wakeup> wakeup_;
  BodyPipe body_;
  std::atomic<bool> stopped_{false};

  // The parser's.
  std::uint64_t unpacked_ = 0;
  std::uint64_t packets_ = 0;

  mutable std::mutex mutex_;
  UploadResult parsed_;
  std::uint64_t shares_ = 1;
  bool failed_ = false;
  std::optional<UploadResult> result_;
};

}  // namespace millrace
