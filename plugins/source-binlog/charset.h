#pragma once

#include <string>
#include <string_view>

#include <mysql.h>

namespace millrace {

/// The collation of bytes that are no text.
inline constexpr unsigned kBinaryCollation = 63;

/// A character set of the server, as the client library knows it; null if it does not.
[[nodiscard]] const MARIADB_CHARSET_INFO* charset_of(unsigned collation);
[[nodiscard]] const MARIADB_CHARSET_INFO* charset_of(const std::string& name);

/// `bytes` of that character set in UTF-8. What is binary is taken byte for byte as code points, as
/// Canal does. Throws std::runtime_error.
[[nodiscard]] std::string to_utf8(std::string_view bytes, const MARIADB_CHARSET_INFO& charset);

}  // namespace millrace
