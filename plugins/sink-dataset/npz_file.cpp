#include <algorithm>
#include <cerrno>
#include <deque>
#include <memory>
#include <stdexcept>

#include <boost/locale/utf.hpp>
#include <fmt/format.h>
#include <zip.h>

#include "millrace/error.h"

#include "data_files.h"

namespace millrace {

namespace {

struct Discard {
  void operator()(zip_t* archive) const { zip_discard(archive); }
};
struct Free {
  void operator()(zip_source_t* source) const { zip_source_free(source); }
};

/// An archive of arrays: what is added must stay as it is until `close`.
class Archive {
 public:
  explicit Archive(const std::filesystem::path& path) : path_(path.string()) {
    int code = 0;
    archive_.reset(zip_open(path_.c_str(), ZIP_CREATE | ZIP_TRUNCATE, &code));
    if (archive_) return;
    zip_error_t error;
    zip_error_init_with_code(&error, code);
    fail(error);
  }

  /// `parts` joined are the file.
  void add(const char* name, const std::vector<std::string_view>& parts) {
    std::vector<zip_buffer_fragment_t> fragments;
    fragments.reserve(parts.size());
    for (const std::string_view part : parts) {
      // libzip does not write to them.
      auto* data = reinterpret_cast<zip_uint8_t*>(const_cast<char*>(part.data()));
      fragments.push_back({data, part.size()});
    }
    std::unique_ptr<zip_source_t, Free> source(
        zip_source_buffer_fragment(archive_.get(), fragments.data(), fragments.size(), 0));
    const zip_int64_t place =
        source ? zip_file_add(archive_.get(), name, source.get(), ZIP_FL_ENC_UTF_8) : -1;
    if (place < 0) fail(*zip_get_error(archive_.get()));
    static_cast<void>(source.release());  // the archive's now
    const auto index = static_cast<zip_uint64_t>(place);
    constexpr zip_uint16_t kFirstDay = 0x21;  // 1980-01-01: the same data, the same file
    if (zip_set_file_compression(archive_.get(), index, ZIP_CM_STORE, 0) != 0 ||
        zip_file_set_dostime(archive_.get(), index, 0, kFirstDay, 0) != 0) {
      fail(*zip_get_error(archive_.get()));
    }
  }

  /// Writes the file beside its place and then gives it its name.
  void close() {
    if (zip_close(archive_.get()) != 0) fail(*zip_get_error(archive_.get()));
    static_cast<void>(archive_.release());
  }

 private:
  [[noreturn]] void fail(zip_error_t& error) const {
    const std::string what =
        fmt::format("cannot write '{}': {}", path_, zip_error_strerror(&error));
    const bool system = zip_error_system_type(&error) == ZIP_ET_SYS;
    const int code = system ? zip_error_code_system(&error) : 0;
    if (code == ENOSPC || code == EDQUOT) throw Transient(what);
    throw std::runtime_error(what);
  }

  std::string path_;
  std::unique_ptr<zip_t, Discard> archive_;
};

/// Version 1.0 of numpy's format:
/// https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
std::string npy_header(std::string_view type, const std::string& shape) {
  constexpr std::size_t kAlignment = 64;
  constexpr std::size_t kBefore = 10;
  std::string text =
      fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}", type, shape);
  while ((kBefore + text.size() + 1) % kAlignment != 0) text += ' ';
  text += '\n';
  std::string header("\x93NUMPY\x01\x00", 8);
  header += static_cast<char>(text.size() & 0xFFU);
  header += static_cast<char>(text.size() >> 8U);
  return header + text;
}

void append_little_endian(std::uint64_t value, unsigned bytes, std::string& to) {
  for (unsigned i = 0; i < bytes; ++i) to += static_cast<char>(value >> (8 * i));
}

std::string labels_array(const std::vector<std::string>& labels) {
  namespace utf = boost::locale::utf;
  std::vector<std::u32string> texts;
  std::size_t longest = 1;
  for (const std::string& label : labels) {
    std::u32string& text = texts.emplace_back();
    for (const char* at = label.data(); at != label.data() + label.size();) {
      text += static_cast<char32_t>(utf::utf_traits<char>::decode(at, label.data() + label.size()));
    }
    longest = std::max(longest, text.size());
  }
  std::string array = npy_header(fmt::format("<U{}", longest), fmt::format("{},", texts.size()));
  for (std::u32string& text : texts) {
    text.resize(longest);
    for (const char32_t c : text) append_little_endian(c, 4, array);
  }
  return array;
}

std::string y_array(const std::vector<LabelledRow>& rows) {
  std::string array = npy_header("<i8", fmt::format("{},", rows.size()));
  for (const LabelledRow& row : rows) append_little_endian(row.label, 8, array);
  return array;
}

}  // namespace

void write_npz(const std::filesystem::path& folder, const DataSplit& split, std::uint32_t bytes) {
  std::deque<std::string> kept;  // does not move what it holds
  Archive archive(folder / "dataset.npz");
  for (const auto& [name, rows] : {std::pair("train", &split.train), {"dev", &split.dev}}) {
    std::vector<std::string_view> parts;
    parts.emplace_back(
        kept.emplace_back(npy_header("|u1", fmt::format("{}, {}", rows->size(), bytes))));
    for (const LabelledRow& row : *rows) parts.push_back(row.features);
    archive.add(fmt::format("{}_x.npy", name).c_str(), parts);
    archive.add(fmt::format("{}_y.npy", name).c_str(), {kept.emplace_back(y_array(*rows))});
  }
  archive.add("labels.npy", {kept.emplace_back(labels_array(split.labels))});
  archive.close();
}

}  // namespace millrace
