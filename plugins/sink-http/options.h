#pragma once

#include <cstdint>
#include <string>

#include "millrace/plugin.h"
#include "millrace/time.h"

#include "http_connection.h"

namespace millrace {

enum class WhenFull : std::uint8_t { drop_oldest, drop_newest };

struct UploadOptions {
  std::string url{};
  std::string agent{};
  std::string token{};
  std::string token_file{};
  std::string ca{};
  std::string certificate{};
  std::string key{};
  std::string spool{};
  ByteSize spool_bytes = 1_GiB;
  WhenFull when_full = WhenFull::drop_oldest;
  ByteSize keep_rejected = 64_MiB;
  ByteSize chunk_bytes = 8_MiB;
  Duration chunk_age = std::chrono::seconds(2);
  ByteSize flush_bytes = 1_MiB;
  Duration flush_every = std::chrono::seconds(1);
  std::int32_t level = 3;
  std::uint32_t uploads = 1;
  Duration connect_timeout = std::chrono::seconds(10);
  Duration answer_timeout = std::chrono::seconds(75);
  Duration retry_first = std::chrono::milliseconds(250);
  Duration retry_max = std::chrono::seconds(30);
  Duration refused_pause = std::chrono::seconds(30);
  Duration retry_after_max = std::chrono::minutes(10);
  Duration finish = std::chrono::seconds(10);
};

/// Chunks are anonymous files that vanish with the process.
[[nodiscard]] inline bool temporary(const UploadOptions& options) { return options.spool == "tmp"; }

/// What is wrong with options that are each valid alone.
void check_upload_options(const UploadOptions& options, Findings& findings);
/// The option `agent`, or this machine's name with what a name must not hold replaced.
[[nodiscard]] std::string agent_name(const UploadOptions& options);
/// The receiver, whose path is meant where `url` names none.
[[nodiscard]] HttpServer http_server(const UploadOptions& options);

}  // namespace millrace
