#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace millrace {

/// The number of bytes that the server stores a DECIMAL in.
[[nodiscard]] std::size_t decimal_size(unsigned precision, unsigned scale);
/// A DECIMAL as the server writes it: all digits of its scale. Throws std::runtime_error if `bytes`
/// is none.
[[nodiscard]] std::string decimal_text(std::span<const std::uint8_t> bytes, unsigned precision,
                                       unsigned scale);

/// A number as the server writes it: the shortest text that is read as the same DOUBLE, and six
/// digits of a FLOAT.
[[nodiscard]] std::string double_text(double value);
[[nodiscard]] std::string float_text(float value);

}  // namespace millrace
