#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>

#include "millrace/context.h"

namespace millrace {

/// Writes refused uploads to the log: of each status the first ones of a period at once, all others
/// in one line at its end, with who they came from and how many. Any thread.
class Refusals {
 public:
  explicit Refusals(Context& context) : context_(context) {}

  /// `who`: address, or address and agent. `what`: the line for this one alone.
  void add(unsigned status, const std::string& who, std::string_view reason,
           const std::string& what);
  /// Often, and with `all` at the end: writes what is due.
  void tell(bool all);

 private:
  struct Period {
    std::chrono::steady_clock::time_point begin;
    std::uint64_t shown = 0;
    std::uint64_t untold = 0;
    std::string reason;                       ///< the latest of those
    std::map<std::string, std::uint64_t> by;  ///< who they came from, as far as there is room
  };

  Context& context_;
  std::mutex mutex_;
  std::map<unsigned, Period> periods_;
};

}  // namespace millrace
