#pragma once

#include "spool.h"

namespace millrace {

struct Spool::Counters {
  explicit Counters(Context& context)
      : chunks(context.counter("chunks")),
        spooled_bytes(context.counter("spooled-bytes")),
        uploaded(context.counter("uploaded")),
        uploaded_packets(context.counter("uploaded-packets")),
        uploaded_bytes(context.counter("uploaded-bytes")),
        retried(context.counter("retried")),
        refused(context.counter("refused")),
        rejected(context.counter("rejected")),
        damaged(context.counter("damaged")),
        recovered(context.counter("recovered")),
        recovered_packets(context.counter("recovered-packets")),
        dropped_chunks(context.counter("dropped-chunks")),
        dropped_recovered(context.counter("dropped-recovered")),
        left(context.counter("left")) {}

  Counter& chunks;
  Counter& spooled_bytes;
  Counter& uploaded;
  Counter& uploaded_packets;
  Counter& uploaded_bytes;
  Counter& retried;
  Counter& refused;
  Counter& rejected;
  Counter& damaged;
  Counter& recovered;
  Counter& recovered_packets;
  Counter& dropped_chunks;
  Counter& dropped_recovered;
  Counter& left;
};

}  // namespace millrace
