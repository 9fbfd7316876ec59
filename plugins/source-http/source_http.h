#pragma once

#include <memory>

#include "millrace/plugin.h"

#include "options.h"
#include "server.h"

namespace millrace {

/// Packets of captures that agents send by HTTP.
class SourceHttp final : public Source<Packet> {
 public:
  explicit SourceHttp(const HttpOptions& options) : options_(options) {}

  void open(Context& context) override;
  void run(Output<Packet>& out, std::stop_token stop) override;
  void close() noexcept override { server_.reset(); }

 private:
  HttpOptions options_;
  std::unique_ptr<Server> server_;
};

void check_http_options(const HttpOptions& options, Findings& findings);

}  // namespace millrace
