#pragma once

#include <array>
#include <string>

#include "connection.h"
#include "session_table.h"

namespace millrace {

/// In the order in which rows are written; types are as the server calls them.
inline constexpr std::array kColumns{
    Column{"session", "uuid"},
    Column{"agent", "character varying(255)"},
    Column{"protocol", "smallint"},
    Column{"src", "inet"},
    Column{"src_port", "integer"},
    Column{"dst", "inet"},
    Column{"dst_port", "integer"},
    Column{"epoch", "bigint"},
    Column{"first_seen", "bigint"},
    Column{"last_seen", "bigint"},
    Column{"packets", "bigint"},
    Column{"bytes", "bigint"},
    Column{"payload_bytes", "bigint"},
    Column{"reason", "character varying(16)"},
    Column{"label", "character varying(255)"},
    Column{"label_index", "integer", true},
    Column{"confidence", "double precision", true},
    Column{"model", "character varying(255)"},
    Column{"model_version", "character varying(255)"},
    Column{"classified_at", "bigint", true},
};

/// Makes table, indexes and view where they are not there yet; what is there is left as it is. Two
/// that do so at once wait for each other.
void create_schema(Connection& connection, const std::string& table);

/// Throws ConfigError for the option "table" that names everything the table lacks, or for "server"
/// if the database cannot hold every text.
void check_schema(Connection& connection, const std::string& table);

}  // namespace millrace
