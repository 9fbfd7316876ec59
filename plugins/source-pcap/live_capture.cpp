#include "live_capture.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <vector>

#include <fmt/format.h>
#include <pcap/pcap.h>
#include <poll.h>

#include "millrace/error.h"
#include "millrace/option.h"

namespace millrace {

namespace {

using namespace std::chrono_literals;

/// How far idle time stays behind the clock: packets that the kernel holds have earlier times.
constexpr Duration kAllowance = 1s;

/// How long a stop may stay unseen on a silent interface.
constexpr Duration kPatience = 50ms;

std::vector<std::string> interfaces() {
  std::vector<std::string> names;
  pcap_if_t* all = nullptr;
  char message[PCAP_ERRBUF_SIZE];
  if (pcap_findalldevs(&all, message) != 0) return names;
  for (const pcap_if_t* one = all; one != nullptr; one = one->next) names.emplace_back(one->name);
  pcap_freealldevs(all);
  return names;
}

[[noreturn]] void fail_activation(int status, const std::string& name, const std::string& detail) {
  if (status == PCAP_ERROR_NO_SUCH_DEVICE) {
    const std::vector<std::string> names = interfaces();
    const std::string meant = nearest(name, names);
    std::string there;
    for (const auto& known : names) there += (there.empty() ? "" : ", ") + known;
    throw ConfigError(
        "interface",
        fmt::format("there is no interface '{}'{}; there are: {}", name,
                    meant.empty() ? "" : fmt::format(", did you mean '{}'?", meant), there));
  }
  if (status == PCAP_ERROR_PERM_DENIED || status == PCAP_ERROR_PROMISC_PERM_DENIED) {
    throw ConfigError(
        "interface",
        fmt::format("capturing on '{}' is not permitted ({}); run as root or give the program "
                    "the capability CAP_NET_RAW",
                    name, detail));
  }
  throw ConfigError("interface", fmt::format("cannot capture on '{}': {} {}", name,
                                             pcap_statustostr(status), detail));
}

}  // namespace

void LiveCapture::Close::operator()(pcap* handle) const { pcap_close(handle); }

LiveCapture::LiveCapture(const LiveOptions& options) : options_(options) {
  char message[PCAP_ERRBUF_SIZE] = {};
  handle_.reset(pcap_create(options.interface.c_str(), message));
  if (!handle_) throw ConfigError("interface", message);
  pcap_t* handle = handle_.get();
  pcap_set_snaplen(handle, static_cast<int>(options.snaplen));
  pcap_set_promisc(handle, options.promiscuous ? 1 : 0);
  pcap_set_immediate_mode(handle, options.immediate ? 1 : 0);
  pcap_set_timeout(
      handle,
      static_cast<int>(std::max<std::int64_t>(
          1, std::chrono::duration_cast<std::chrono::milliseconds>(options.read_timeout).count())));
  pcap_set_buffer_size(handle,
                       static_cast<int>(std::min<std::uint64_t>(options.buffer.bytes, INT32_MAX)));
  pcap_set_tstamp_precision(handle, PCAP_TSTAMP_PRECISION_NANO);
  if (const int status = pcap_activate(handle); status < 0) {
    fail_activation(status, options.interface, pcap_geterr(handle));
  }
  if (const auto link = static_cast<LinkType>(pcap_datalink(handle)); !is_decoded(link)) {
    throw ConfigError("interface", fmt::format("packets of '{}' cannot be decoded: link type {}",
                                               options.interface, link_name(link)));
  }
  if (!options.filter.empty()) {
    try {
      // In the kernel: what does not match is not copied at all.
      Filter filter(options.filter, pcap_datalink(handle), options.snaplen);
      if (pcap_setfilter(handle, &filter.program()) != 0)
        throw std::runtime_error(pcap_geterr(handle));
    } catch (const std::runtime_error& error) {
      throw ConfigError("filter", error.what());
    }
  }
  if (pcap_setnonblock(handle, 1, message) != 0) throw ConfigError("interface", message);
}

void LiveCapture::count_drops(Context& context) {
  pcap_stat now{};
  if (pcap_stats(handle_.get(), &now) != 0) return;
  // The kernel's numbers have 32 bits and wrap.
  context.counter("kernel-dropped").add(now.ps_drop - dropped_);
  context.counter("interface-dropped").add(now.ps_ifdrop - if_dropped_);
  dropped_ = now.ps_drop;
  if_dropped_ = now.ps_ifdrop;
}

void LiveCapture::run(Output<Packet>& out, PacketBatcher& batcher, Gate& gate, Duration duration,
                      Context& context, const std::stop_token& stop) {
  const auto link = static_cast<LinkType>(pcap_datalink(handle_.get()));
  const bool nanoseconds = pcap_get_tstamp_precision(handle_.get()) == PCAP_TSTAMP_PRECISION_NANO;
  const Timestamp started = context.clock().now();
  Timestamp counted = started;
  // When it is to stop: what the kernel had taken by then is still given on.
  std::optional<Timestamp> end;
  while (true) {
    if (!end && stop.stop_requested()) end = context.clock().now();
    pcap_pkthdr* header = nullptr;
    const u_char* data = nullptr;
    std::size_t got = 0;
    int result = 1;
    bool enough = false;
    for (; got < batcher.batch_packets() && !enough; ++got) {
      result = pcap_next_ex(handle_.get(), &header, &data);
      if (result != 1) break;
      Packet packet;
      packet.time = Timestamp(std::chrono::seconds(header->ts.tv_sec) +
                              Duration(header->ts.tv_usec * (nanoseconds ? 1 : 1000)));
      packet.data = reinterpret_cast<const std::byte*>(data);
      packet.captured = header->caplen;
      packet.length = header->len;
      packet.link = link;
      enough = (end && packet.time > *end) || gate.admit(packet) == Gate::Answer::stop;
      if (enough) break;
      batcher.add(out, packet);
      enough = gate.satisfied();
    }
    batcher.push(out);
    if (result < 0) {
      count_drops(context);
      throw std::runtime_error(
          fmt::format("capture on '{}' ended: {}", options_.interface, pcap_geterr(handle_.get())));
    }
    const Timestamp now = context.clock().now();
    if (enough || (end && result == 0 && now - *end > options_.read_timeout + kPatience)) break;
    if (now - counted >= 1s) {
      count_drops(context);
      counted = now;
    }
    if (!end && duration.count() != 0 && now - started >= duration) end = now;
    if (result == 1) continue;
    if (got == 0) batcher.push_time(out, now - kAllowance);
    pollfd wait{pcap_get_selectable_fd(handle_.get()), POLLIN, 0};
    ::poll(&wait, 1, static_cast<int>(kPatience / 1ms));
  }
  count_drops(context);
}

}  // namespace millrace
