#include "charset.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <stdexcept>
#include <utility>

#include <fmt/format.h>
#include <iconv.h>

namespace millrace {

namespace {

std::string from_binary(std::string_view bytes) {
  constexpr unsigned char kAscii = 0x80;
  std::string text;
  text.reserve(bytes.size());
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < kAscii) {
      text += c;
    } else {
      text += static_cast<char>(0xc0U | byte >> 6U);
      text += static_cast<char>(0x80U | (byte & 0x3fU));
    }
  }
  return text;
}

/// The server's character sets as iconv calls them. The client library can convert them only where
/// it is built with iconv, which Debian's is not.
constexpr std::array<std::pair<std::string_view, const char*>, 30> kNames{{
    {"big5", "BIG5"},
    {"cp1250", "CP1250"},
    {"cp1251", "CP1251"},
    {"cp1256", "CP1256"},
    {"cp1257", "CP1257"},
    {"cp850", "CP850"},
    {"cp852", "CP852"},
    {"cp866", "CP866"},
    {"cp932", "CP932"},
    {"eucjpms", "EUC-JP-MS"},
    {"euckr", "EUC-KR"},
    {"gb2312", "GB2312"},
    {"gbk", "GBK"},
    {"greek", "ISO-8859-7"},
    {"hebrew", "ISO-8859-8"},
    {"koi8r", "KOI8-R"},
    {"koi8u", "KOI8-U"},
    {"latin1", "CP1252"},
    {"latin2", "ISO-8859-2"},
    {"latin5", "ISO-8859-9"},
    {"latin7", "ISO-8859-13"},
    {"macce", "MAC-CENTRALEUROPE"},
    {"macroman", "MACINTOSH"},
    {"sjis", "SHIFT-JIS"},
    {"tis620", "TIS-620"},
    {"ucs2", "UCS-2BE"},
    {"ujis", "EUC-JP"},
    {"utf16", "UTF-16BE"},
    {"utf16le", "UTF-16LE"},
    {"utf32", "UTF-32BE"},
}};

class Converter {
 public:
  explicit Converter(std::string_view name) {
    const auto* const known =
        std::ranges::find(kNames, name, &std::pair<std::string_view, const char*>::first);
    if (known != kNames.end()) handle_ = ::iconv_open("UTF-8", known->second);
    // What it gives in place of a handle.
    if (known == kNames.end() || reinterpret_cast<std::intptr_t>(handle_) == -1) {
      throw std::runtime_error(fmt::format("the character set {} is not supported", name));
    }
  }
  Converter(const Converter&) = delete;
  Converter& operator=(const Converter&) = delete;
  ~Converter() { ::iconv_close(handle_); }

  /// Takes what can be converted out of `bytes`. Returns whether that was all.
  bool append(std::string_view& bytes, std::string& text) const {
    std::array<char, 4096> piece{};
    while (!bytes.empty()) {
      // iconv takes bytes as not const, and changes nothing.
      char* from = const_cast<char*>(bytes.data());
      std::size_t left = bytes.size();
      char* to = piece.data();
      std::size_t room = piece.size();
      const std::size_t result = ::iconv(handle_, &from, &left, &to, &room);
      const int error = errno;
      text.append(piece.data(), piece.size() - room);
      bytes.remove_prefix(bytes.size() - left);
      if (result == static_cast<std::size_t>(-1) && error != E2BIG) return false;
    }
    return true;
  }

 private:
  iconv_t handle_{};
};

}  // namespace

const MARIADB_CHARSET_INFO* charset_of(unsigned collation) {
  return mariadb_get_charset_by_nr(collation);
}

const MARIADB_CHARSET_INFO* charset_of(const std::string& name) {
  return mariadb_get_charset_by_name(name.c_str());
}

std::string to_utf8(std::string_view bytes, const MARIADB_CHARSET_INFO& charset) {
  const std::string_view name = charset.csname;
  if (name == "binary") return from_binary(bytes);
  if (name == "utf8mb4" || name == "utf8mb3" || name == "utf8" || name == "ascii" ||
      bytes.empty()) {
    return std::string(bytes);
  }
  const Converter convert(name);
  std::string text;
  std::string_view rest = bytes;
  while (!convert.append(rest, text)) {
    // The server's latin1 is CP1252, and has the bytes that this leaves out as code points.
    if (name != "latin1") {
      throw std::runtime_error(fmt::format("it is no text of the character set {}", name));
    }
    text += from_binary(rest.substr(0, 1));
    rest.remove_prefix(1);
  }
  return text;
}

}  // namespace millrace
