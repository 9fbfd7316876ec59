#pragma once

#include <string>

#include "byte_reader.h"
#include "table_map.h"

namespace millrace {

/// The next value as text, which is of `column` and not NULL. Throws std::runtime_error if it
/// cannot be read.
[[nodiscard]] std::string read_value(ByteReader& reader, const Column& column);

}  // namespace millrace
