#pragma once

#include <array>
#include <cstddef>
#include <string>

#include "connection.h"
#include "session_table.h"

namespace millrace {

/// In the order in which rows are bound.
inline constexpr std::array kColumns{
    Column{"session", "BINARY(16)"},
    Column{"agent", "VARCHAR(255)"},
    Column{"protocol", "TINYINT UNSIGNED"},
    Column{"src", "VARBINARY(16)"},
    Column{"src_port", "SMALLINT UNSIGNED"},
    Column{"dst", "VARBINARY(16)"},
    Column{"dst_port", "SMALLINT UNSIGNED"},
    Column{"epoch", "INT UNSIGNED"},
    Column{"first_seen", "BIGINT"},
    Column{"last_seen", "BIGINT"},
    Column{"packets", "INT UNSIGNED"},
    Column{"bytes", "BIGINT UNSIGNED"},
    Column{"payload_bytes", "BIGINT UNSIGNED"},
    Column{"reason", "VARCHAR(16)"},
    Column{"label", "VARCHAR(255)"},
    Column{"label_index", "INT", true},
    Column{"confidence", "DOUBLE", true},
    Column{"model", "VARCHAR(255)"},
    Column{"model_version", "VARCHAR(255)"},
    Column{"classified_at", "BIGINT", true},
};

/// How many characters the columns take, 255 at most.
struct TextLimits {
  std::size_t agent = 0;
  std::size_t label = 0;
  std::size_t model = 0;
  std::size_t model_version = 0;
};

/// Makes table and view where they are not there yet; what is there is left as it is. Two that do
/// so at once do not disturb each other.
void create_schema(Connection& connection, const std::string& table);

/// Throws ConfigError for the option "table" that names everything the table lacks.
[[nodiscard]] TextLimits check_schema(Connection& connection, const std::string& table);

}  // namespace millrace
