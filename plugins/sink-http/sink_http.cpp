#include "sink_http.h"

#include <exception>
#include <vector>

#include <fmt/format.h>

namespace millrace {

void SinkHttp::open(Context& context) {
  context_ = &context;
  auto spool = std::make_unique<Spool>(options_, context);
  auto uploader = std::make_unique<Uploader>(options_, context, *spool);
  auto writer = std::make_unique<ChunkWriter>(options_, context, *spool);
  spool->open();
  uploader->start();
  const bool secret = !options_.token.empty() || !options_.token_file.empty();
  if (secret && http_server(options_).url.starts_with("http:")) {
    context.warning("without TLS the bearer token can be read on the wire: use https://");
  }
  context.info(
      fmt::format("uploads to {} as agent '{}'", http_server(options_).url, agent_name(options_)));
  spool_ = std::move(spool);
  writer_ = std::move(writer);
  uploader_ = std::move(uploader);
}

void SinkHttp::write(Batch<Packet>& in) {
  std::vector<std::size_t> unfit;
  for (std::size_t i = 0; i < in.items.size(); ++i) {
    if (!fits_capture(in.items[i])) unfit.push_back(i);
  }
  if (!unfit.empty()) {
    throw Rejected(fmt::format("a capture holds packets of at most {} bytes, of a time from 1970 "
                               "to 2106",
                               kMostCaptured),
                   std::move(unfit));
  }
  writer_->add(in);
}

void SinkHttp::flush() {
  const auto deadline = std::chrono::steady_clock::now() + options_.finish;
  writer_->close();
  spool_->hurry();
  spool_->wait_until_empty(deadline);
  uploader_->stop();
  spool_->end();
}

void SinkHttp::close() noexcept {
  try {
    // After an error nobody has called `flush`.
    writer_->close();
  } catch (const std::exception& error) {
    context_->error(fmt::format("the last packets are not in the spool: {}", error.what()));
  }
  uploader_.reset();
  writer_.reset();
  spool_.reset();
}

}  // namespace millrace
