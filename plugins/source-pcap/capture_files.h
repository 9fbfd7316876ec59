#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "millrace/time.h"

namespace millrace {

/// A capture file to read, and why it is read.
struct CaptureFile {
  std::filesystem::path path;
  std::filesystem::path folder;  ///< the folder in `file` that stands for it; empty: named itself
  std::optional<Timestamp> begins{};  ///< time of its first packets, where that was looked at
};

/// The files that the option `file` names, each where `find` says it lies (Context::find_file): a
/// folder stands for all files in it and below it, without hidden ones, by name, with numbers in it
/// as numbers (r.pcap2 before r.pcap10). Throws ConfigError("file", ...), with the name that was
/// probably meant.
[[nodiscard]] std::vector<CaptureFile> list_captures(
    const std::vector<std::string>& names,
    const std::function<std::filesystem::path(const std::filesystem::path&)>& find);

/// Takes out of `files` those of folders that are no captures, as their first bytes tell, and
/// returns them. Throws ConfigError("file", ...) for a file that is named itself and is none, if
/// one cannot be opened, and if none is left. Empty files stay, and those whose compressed data are
/// damaged at the beginning: reading them tells what is wrong.
[[nodiscard]] std::vector<CaptureFile> take_out_others(std::vector<CaptureFile>& files);

/// By `begins`, those of one agent together (`agent` names it), otherwise as they were. One of
/// which it is not known stays behind the one before it.
void sort_by_time(std::vector<CaptureFile>& files,
                  const std::function<std::string(const CaptureFile&)>& agent);

/// The earliest and the latest of `times`, apart from those that are more than a day away from the
/// middle one: single packets with wrong times. None if `times` is empty.
struct Times {
  Timestamp earliest;
  Timestamp latest;
};
[[nodiscard]] std::optional<Times> bulk_of(std::span<const Timestamp> times);

/// The sum of the files' sizes; 0 if standard input is among them.
[[nodiscard]] std::uint64_t total_size(const std::vector<CaptureFile>& files);

/// The name of the folder below the one that the option `file` names; of a file that is named
/// itself or lies in that folder directly: of the folder it is in.
[[nodiscard]] std::string folder_name(const CaptureFile& file);
/// The file's name without .pcap, .pcapng or .cap, and .gz or .zst.
[[nodiscard]] std::string file_name(const CaptureFile& file);
/// Throws ConfigError if a folder in `file` holds both files and folders of files: then
/// `folder_name` would give its own name beside those of the others.
void check_folder_names(const std::vector<CaptureFile>& files);

}  // namespace millrace
