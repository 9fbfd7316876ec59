#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "millrace/time.h"

namespace millrace {

enum class WatermarkKind : std::uint8_t { none, packets };
enum class ClientCertificate : std::uint8_t { required, optional };

struct HttpOptions {
  std::string listen = "127.0.0.1:8080";
  std::string certificate;
  std::string key;
  std::string client_ca;
  ClientCertificate client_certificate = ClientCertificate::required;
  std::string tokens;
  bool insecure = false;
  ByteSize max_body = 1_GiB;
  ByteSize max_unpacked = 4_GiB;
  std::uint32_t max_uploads = 32;
  std::uint32_t address_uploads = 24;
  std::uint32_t max_connections = 4096;
  std::uint32_t address_connections = 1024;
  ByteSize buffer = 256_KiB;
  std::uint32_t batch = 512;
  ByteSize batch_bytes = 256_KiB;
  std::uint32_t hand_over = 16;
  std::uint32_t remember = 256;
  std::uint32_t agents = 1024;
  std::uint32_t io_threads = 2;
  Duration header_timeout = std::chrono::seconds(10);
  Duration body_timeout = std::chrono::seconds(20);
  ByteSize min_rate = 16_KiB;
  Duration idle_timeout = std::chrono::seconds(30);
  Duration answer_timeout = std::chrono::seconds(50);  ///< below the usual minute of clients
  Duration blocked = std::chrono::seconds(10);
  Duration finish = std::chrono::seconds(10);
  WatermarkKind watermark = WatermarkKind::none;
};

}  // namespace millrace
