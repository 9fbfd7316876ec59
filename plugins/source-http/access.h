#pragma once

#include <array>
#include <filesystem>
#include <memory>
#include <string_view>
#include <vector>

#include <boost/asio/ssl/context.hpp>

#include "options.h"

namespace millrace {

/// The bearer tokens that are let in.
class Tokens {
 public:
  /// One token a line; empty lines and lines that begin with '#' are left out. Throws
  /// ConfigError("tokens", ...), which never shows a token.
  static Tokens read(const std::filesystem::path& file);

  /// Whether this value of an Authorization header bears one of them. Takes as long for every
  /// token of one length.
  [[nodiscard]] bool admits(std::string_view authorization) const;
  [[nodiscard]] std::size_t size() const { return digests_.size(); }

 private:
  using Digest = std::array<unsigned char, 32>;
  static Digest digest(std::string_view token);

  std::vector<Digest> digests_;
};

/// TLS as the options say; null without a certificate. Throws ConfigError naming the option.
[[nodiscard]] std::unique_ptr<boost::asio::ssl::context> make_tls(const HttpOptions& options);

/// 32 hexadecimal digits that no one has had before.
[[nodiscard]] std::string random_id();

}  // namespace millrace
