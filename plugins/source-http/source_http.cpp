#include "source_http.h"

#include <algorithm>
#include <optional>
#include <utility>

#include <fmt/format.h>
#include <sys/resource.h>

#include "millrace/packet_clock.h"

#include "endpoint.h"

namespace millrace {

using namespace std::chrono_literals;

void check_http_options(const HttpOptions& options, Findings& findings) {
  if (options.certificate.empty() != options.key.empty()) {
    findings.add(options.key.empty() ? "certificate" : "key",
                 "'certificate' and 'key' are needed together");
  }
  if (!options.client_ca.empty() && options.certificate.empty()) {
    findings.add("client_ca", "client certificates need TLS: set 'certificate' and 'key'");
  }
  boost::asio::io_context io;
  try {
    const std::string why = exposure(options, listen_endpoint(io, options.listen));
    if (!why.empty()) findings.add("listen", why);
  } catch (const ConfigError& error) {
    findings.add("listen", error.what());
  }
}

void SourceHttp::open(Context& context) {
  server_ = std::make_unique<Server>(options_, context);
  context.info(fmt::format("listening on {}", server_->url()));
  rlimit files{};
  constexpr rlim_t kOthers = 64;
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0 &&
      files.rlim_cur < options_.max_connections + kOthers) {
    context.warning(
        fmt::format("the system lets this program have {} open files, not enough for {} "
                    "connections (ulimit -n)",
                    files.rlim_cur, options_.max_connections));
  }
  if (options_.insecure && !server_->local()) {
    context.warning(fmt::format(
        "insecure = true: whoever reaches {} may upload, without a token or certificate",
        server_->url()));
  }
  if (!options_.tokens.empty() && options_.certificate.empty() && !server_->local()) {
    context.warning("without TLS the bearer tokens can be read on the wire");
  }
}

void SourceHttp::run(Output<Packet>& out, std::stop_token stop) {
  struct Stop {
    Server& server;
    ~Stop() { server.stop(); }
  } const stop_at_the_end{*server_};
  server_->start();
  const std::stop_callback drain(stop, [this] { server_->drain(); });
  PacketClock clock;
  while (!(server_->draining() && (server_->idle() || server_->over()))) {
    std::optional<Batch<Packet>> batch =
        server_->hand_over().take(server_->draining() ? 10ms : 100ms);
    if (!batch) batch.emplace();
    if (options_.watermark == WatermarkKind::packets) {
      for (const Packet& packet : batch->items) clock.see(packet.time);
      batch->watermark = clock.watermark();
    } else {
      batch->watermark = kNoTime;  // that of one upload says nothing of the others
    }
    out.push(std::move(*batch));
  }
  server_->sum_up();
}

}  // namespace millrace

using namespace millrace;

MILLRACE_PLUGIN(
    "source-http", MILLRACE_VERSION,
    source<SourceHttp, HttpOptions>(
        "source-http", "Packets of captures that agents send by HTTP",
        option<&HttpOptions::listen>(
            "listen",
            "address and port to listen on, such as \"127.0.0.1:8080\" or \"[::]:8080\"; port 0 "
            "takes "
            "a free one, which the log names. One that is not of this machine alone needs "
            "'tokens', 'client_ca' or 'insecure'"),
        option<&HttpOptions::certificate>(
            "certificate", "PEM file with the certificate and its chain; with it TLS is spoken"),
        option<&HttpOptions::key>("key", "PEM file with the certificate's key"),
        option<&HttpOptions::client_ca>(
            "client_ca", "PEM file with the authorities whose client certificates are let in"),
        option<&HttpOptions::client_certificate>(
            "client_certificate",
            "with 'client_ca': whether a client must show a certificate, or only may")
            .choices({{"required", ClientCertificate::required},
                      {"optional", ClientCertificate::optional}}),
        option<&HttpOptions::tokens>(
            "tokens",
            "file with bearer tokens, one a line; with it every upload needs one of them"),
        option<&HttpOptions::insecure>(
            "insecure",
            "listens on an address that other machines reach although neither 'tokens' nor "
            "'client_ca' keeps strangers out; a warning at every start"),
        option<&HttpOptions::max_body>("max_body", "size of a body as it comes")
            .between(1_KiB, ByteSize{std::uint64_t{1} << 40U}),
        option<&HttpOptions::max_unpacked>("max_unpacked", "size of a capture when it is unpacked")
            .between(1_KiB, ByteSize{std::uint64_t{1} << 42U}),
        option<&HttpOptions::max_uploads>(
            "max_uploads",
            "uploads under way at a time, from headers to answer; one more is answered 429, unless "
            "one slower than 'min_rate' can make way. Also the number of parsing threads at most")
            .between(1, 1024),
        option<&HttpOptions::address_uploads>(
            "address_uploads",
            "of these from one address (IPv6: from one /64 network); a balancer or NAT is one")
            .between(1, 1024),
        option<&HttpOptions::max_connections>("max_connections",

                                              "open connections; for one more, that without an "
                                              "upload which has waited for longest is closed")
            .between(1, 1U << 20U),
        option<&HttpOptions::address_connections>(
            "address_connections",
            "of these from one address (IPv6: from one /64 network), in the same way")
            .between(1, 1U << 20U),
        option<&HttpOptions::buffer>(
            "buffer", "bytes of a body that wait for the parser; then it is not read any more")
            .between(64_KiB, 1_GiB),
        option<&HttpOptions::batch>("batch", "packets given on together at most").between(1, 65536),
        option<&HttpOptions::batch_bytes>("batch_bytes",
                                          "size of the buffers that packets are read into")
            .between(4_KiB, 64_MiB),
        option<&HttpOptions::hand_over>(
            "hand_over", "parsed batches of all uploads that wait for the next stage")
            .between(1, 65536),
        option<&HttpOptions::remember>(
            "remember", "delivered chunks of an agent that are known when they come again")
            .between(1, 1U << 20U),
        option<&HttpOptions::agents>("agents", "agents whose chunks are remembered")
            .between(1, 1U << 20U),
        option<&HttpOptions::io_threads>("io_threads", "threads that serve the connections")
            .between(1, 64),
        option<&HttpOptions::header_timeout>(
            "header_timeout",
            "time for the first byte, for a TLS handshake, for the headers of a request, and for "
            "taking an answer")
            .between(1ms, 24h),
        option<&HttpOptions::body_timeout>(
            "body_timeout",
            "in each such time a body must go on by 'min_rate', so a stall that is shorter does no "
            "harm; time in which it is not read does not count")
            .between(1ms, 24h),
        option<&HttpOptions::min_rate>("min_rate",
                                       "bytes a second that a body must bring; 0: any byte will do")
            .between(ByteSize{0}, 1_GiB),
        option<&HttpOptions::idle_timeout>("idle_timeout",
                                           "how long a connection is kept between requests")
            .between(1ms, 24h),
        option<&HttpOptions::answer_timeout>(
            "answer_timeout",
            "how long an upload waits for its packets to be delivered, or for another upload of "
            "the same chunk; then it is answered 503")
            .between(1ms, 24h),
        option<&HttpOptions::blocked>(
            "blocked", "how long the next stage may take nothing; then uploads are answered 503")
            .between(1ms, 24h),
        option<&HttpOptions::finish>(
            "finish", "at the end: time for the uploads that are under way; then they get 503")
            .between(0ms, 24h),
        option<&HttpOptions::watermark>(
            "watermark",
            "\"none\": agents have times of their own, none is told to the next stages; "
            "\"packets\": there is one agent, time is that of its packets")
            .choices({{"none", WatermarkKind::none}, {"packets", WatermarkKind::packets}}))
        .single("listens on one address")
        .checked(&check_http_options))
