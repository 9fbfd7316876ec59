#include "millrace/plugin.h"

#include "server_stages.h"
#include "split_memory.h"

namespace millrace {

namespace {

OptionSpec packets_option() {
  return option<&SplitOptions::packets>("packets",
                                        "packets that make a session full, and due at once")
      .between(1, 65535);
}

OptionSpec delay_option() {
  return option<&SplitOptions::delay>(
             "delay",
             "time after its first packet when a session is due at the latest, in the time "
             "of the packets")
      .at_least(Duration(0));
}

OptionSpec idle_option() {
  return option<&SplitOptions::idle>(
             "idle",
             "a five-tuple that was due begins a new session when its next packet's time is more "
             "than this away from its last one's; a TCP SYN begins one at once")
      .at_least(Duration(0));
}

OptionSpec remember_option() {
  return option<&SplitOptions::remember>(
             "remember",
             "a five-tuple that was done is remembered for 'idle' and so long after its last "
             "packet: until then its sessions are counted as its epochs")
      .at_least(Duration(0));
}

OptionSpec max_sessions_option() {
  return option<&SplitOptions::max_sessions>(
             "max_sessions",
             "five-tuples remembered, about 180 bytes each; when the table is full the done one "
             "that was idle for longest is forgotten, and if none is done the oldest session is "
             "given on early, with reason 'evicted'")
      .between(1, 1U << 30U);
}

OptionSpec max_bytes_option() {
  return option<&SplitOptions::max_bytes>(
             "max_bytes",
             "packet bytes held of sessions that are not due yet; beyond it the oldest "
             "session is given on early, with reason 'evicted'")
      .at_least(1_MiB);
}

OptionSpec max_fragments_option() {
  return option<&SplitOptions::max_fragments>(
             "max_fragments",
             "fragmented IP packets remembered, so that later fragments find their "
             "session; about 100 bytes each")
      .between(0, 1U << 24U);
}

OptionSpec keep_option() {
  return option<&SplitOptions::keep>(
             "keep",
             "the lowest layer whose bytes are kept of each packet: l7 the transport payload, "
             "l4 from the transport header on, l2 the whole packet; a model needs the layer "
             "that its card names")
      .choices({{"l7", Layer::l7}, {"l4", Layer::l4}, {"l2", Layer::l2}});
}

}  // namespace

}  // namespace millrace

using namespace millrace;

MILLRACE_PLUGIN(
    "split-memory", MILLRACE_VERSION,
    transform<SplitMemory, SplitOptions>("split-memory", "Groups packets into sessions, in memory",
                                         packets_option(), delay_option(), idle_option(),
                                         remember_option(), max_sessions_option(),
                                         max_bytes_option(), max_fragments_option(), keep_option())
        .single("keeps the state of all sessions")
        .aggregates(),
    transform<SplitTickets, SplitOptions>(
        "tickets",
        "Groups packets of many agents into sessions that wait, in memory, to be claimed",
        packets_option(), delay_option(), idle_option(), remember_option(), max_sessions_option(),
        max_bytes_option(), max_fragments_option(), keep_option(),
        option<&SplitOptions::max_agents>(
            "max_agents",
            "agents whose sessions are kept apart; max_sessions and max_bytes hold for each of "
            "them; beyond it the agent that was silent for longest gives on its sessions early")
            .between(1, 65536),
        option<&SplitOptions::server>("server",
                                      "has no effect: it is there so that a pipeline file written "
                                      "for split-redis needs another 'use' only"))
        .single("keeps the state of all sessions")
        .aggregates(),
    transform<ClaimMemory, ClaimOptions>(
        "claim",
        "Takes the sessions that tickets name out of the memory that split-memory.tickets fills",
        option<&ClaimOptions::server>("server",
                                      "has no effect: it is there so that a pipeline file written "
                                      "for split-redis needs another 'use' only"))
        .aggregates())
