#pragma once

// In this order: the second does not stand alone.
// clang-format off
#include <mysql.h>
#include <mariadb_rpl.h>
// clang-format on
