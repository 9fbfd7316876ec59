#pragma once

#include <string>

#include "millrace/provider.h"

namespace millrace::host {

/// What the supervisor hands to a pipeline's process: the pipeline file as it was when it was
/// checked, and the values for its `${config.KEY}`. It goes through a descriptor, so that no
/// secret of it stands on a command line, where every user of the machine could read it.
struct Handover {
  std::string pipeline;
  ConfigValues config;
};

/// An anonymous file in memory that holds `handover`, with close-on-exec; the caller closes it.
/// Throws std::system_error.
[[nodiscard]] int write_handover(const Handover& handover);

/// Reads what `write_handover` made, from whatever place the descriptor stands at. Throws
/// std::runtime_error if it is something else.
[[nodiscard]] Handover read_handover(int descriptor);

}  // namespace millrace::host
