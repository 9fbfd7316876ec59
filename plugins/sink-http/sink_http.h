#pragma once

#include <memory>

#include "millrace/packet.h"
#include "millrace/plugin.h"
#include "millrace/stage.h"

#include "chunk_writer.h"
#include "options.h"
#include "spool.h"
#include "uploader.h"

namespace millrace {

/// Sends packets to a receiver by HTTP, in chunks that wait as files until they are taken. `write`
/// never waits for the network.
class SinkHttp final : public Sink<Packet> {
 public:
  explicit SinkHttp(const UploadOptions& options) : options_(options) {}

  void open(Context& context) override;
  void write(Batch<Packet>& in) override;
  void flush() override;
  void close() noexcept override;

 private:
  UploadOptions options_;
  Context* context_ = nullptr;
  std::unique_ptr<Spool> spool_;
  std::unique_ptr<ChunkWriter> writer_;
  std::unique_ptr<Uploader> uploader_;
};

}  // namespace millrace
