#pragma once

#include <cstdint>
#include <string>

#include "byte_reader.h"

namespace millrace {

// Values as the server writes them, from the forms in which it stores them. `digits`: of the
// fraction of a second, 0 to 6. A value that is no time throws std::runtime_error.

[[nodiscard]] std::string date_text(ByteReader& reader);
[[nodiscard]] std::string year_text(ByteReader& reader);
[[nodiscard]] std::string time_text(ByteReader& reader, unsigned digits);
[[nodiscard]] std::string datetime_text(ByteReader& reader, unsigned digits);
/// In UTC.
[[nodiscard]] std::string timestamp_text(ByteReader& reader, unsigned digits);

// The forms of before MySQL 5.6, which columns of old tables and those of a server with
// mysql56_temporal_format = OFF have.

[[nodiscard]] std::string old_time_text(ByteReader& reader);
[[nodiscard]] std::string old_datetime_text(ByteReader& reader);
[[nodiscard]] std::string old_timestamp_text(ByteReader& reader);

}  // namespace millrace
