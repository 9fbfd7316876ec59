#pragma once

#include <cstdint>
#include <map>
#include <stop_token>
#include <string>

#include "millrace/context.h"

namespace millrace {

/// The values of a config provider at one moment: what `${config.KEY}` in a pipeline file stands
/// for. Keys of inner tables are joined by dots, numbers and truth values are written as in TOML.
struct ConfigValues {
  /// Grows with every change that the provider sees, so that a status can say which one it is of:
  /// for ZooKeeper the transaction (mzxid) that wrote the node.
  std::uint64_t generation = 0;
  std::map<std::string, std::string> values;
};

/// Where a provider tells what it has read; the supervisor implements it. Any thread; returns at
/// once and throws nothing.
class ConfigListener {
 public:
  ConfigListener() = default;
  ConfigListener(const ConfigListener&) = delete;
  ConfigListener& operator=(const ConfigListener&) = delete;
  virtual ~ConfigListener() = default;
  /// The newest values. Values that come before earlier ones were worked on replace them; equal
  /// values do not restart the pipeline.
  virtual void changed(ConfigValues values) = 0;
  /// There are values that cannot be read (no TOML, say). They are reported as an error of this
  /// generation, and what runs goes on.
  virtual void unreadable(std::uint64_t generation, std::string why) = 0;
};

/// How the pipeline is doing, for the place where operators look.
struct ConfigStatus {
  std::uint64_t applied = 0;  ///< generation the pipeline runs with; 0: it does not run yet
  std::uint64_t seen = 0;     ///< newest generation
  bool ok = true;             ///< false: `seen` cannot be applied, or the pipeline does not stay up
  std::string error;          ///< why; the report of `millrace check`, or how the pipeline ended
  std::int32_t pid = 0;       ///< of the pipeline's process; 0: none runs
  std::uint64_t restarts = 0;  ///< after an end that nobody asked for
  std::string counters;  ///< one JSON object: the counts of every stage, as `run` prints them; or
                         ///< empty
};

/// Yields values and tells when they change; `[config] use = "PLUGIN"`. Lives in the supervisor,
/// which loads no other plugin and starts the pipeline in a process of its own.
///
/// Life: constructed with its options, `open`, then `run` in a thread of its own and `report` from
/// another, `close` when `run` has returned.
class ConfigProvider {
 public:
  ConfigProvider() = default;
  ConfigProvider(const ConfigProvider&) = delete;
  ConfigProvider& operator=(const ConfigProvider&) = delete;
  virtual ~ConfigProvider() = default;

  /// ConfigError names an option that cannot be right. A server that is not up yet is no error:
  /// `run` waits for it, and says so.
  virtual void open(Context& /*context*/) {}
  /// Gives `listener` the values as soon as they are known and after every change, until `stop`.
  /// Waits out everything that may pass. An exception ends the supervisor and the pipeline.
  virtual void run(ConfigListener& listener, std::stop_token stop) = 0;
  /// Takes the newest status, at every change of it and whenever new counters have come (every few
  /// seconds). Must not wait for the network: what cannot be written now is written later, the
  /// newest first.
  virtual void report(const ConfigStatus& /*status*/) {}
  /// Called once if `open` returned, after the last status.
  virtual void close() noexcept {}
};

}  // namespace millrace
