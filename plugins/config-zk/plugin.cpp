#include "millrace/plugin.h"

#include "apply.h"
#include "config_zk.h"

using namespace millrace;

MILLRACE_PLUGIN(
    "config-zk", MILLRACE_VERSION,
    provider<ConfigZk, ConfigZkOptions>(
        "config-zk",
        "Values from a ZooKeeper node, again at every change; tells the agent's status",
        option<&ConfigZkOptions::server>(
            "server",
            "the ensemble: host:port, several with commas between them, and at the end "
            "/folder if all paths are below one")
            .required(),
        option<&ConfigZkOptions::node>(
            "node", "path of the node with the values; one that is not there yet is waited for")
            .required(),
        option<&ConfigZkOptions::format>("format", "how the node's values are written")
            .choices({{"toml", ValueFormat::toml}, {"json", ValueFormat::json}}),
        option<&ConfigZkOptions::session_timeout>(
            "session_timeout",
            "so long after its last sign of life the agent counts as gone; the ensemble has "
            "limits of its own for it")
            .between(std::chrono::seconds(1), std::chrono::minutes(10)),
        option<&ConfigZkOptions::agent>(
            "agent", "the agent's name, which no other may have; empty: the name of the machine"),
        option<&ConfigZkOptions::status>(
            "status",
            "folder in which the agent registers as an ephemeral node of its name; empty: it does "
            "not"),
        option<&ConfigZkOptions::report>(
            "report", "how often counters are written; everything else is written at once")
            .between(std::chrono::milliseconds(100), std::chrono::hours(1)),
        option<&ConfigZkOptions::auth>(
            "auth", "user:password (digest); the nodes that are made then belong to this user")
            .secret(),
        option<&ConfigZkOptions::readable>(
            "readable", "with 'auth': everybody may read the nodes that are made"))
        .checked(&ConfigZk::check),
    sink<ConfigZkApply, ApplyOptions>(
        "apply", "Makes ZooKeeper nodes of the rows of a table, change by change",
        option<&ApplyOptions::server>(
            "server",
            "the ensemble: host:port, several with commas between them, and at the end "
            "/folder if all paths are below one")
            .required(),
        option<&ApplyOptions::node>(
            "node", "path of a row's node, with {column} in it; folders that are missing are made"),
        option<&ApplyOptions::format>("format", "how the nodes' values are written")
            .choices({{"toml", ValueFormat::toml}, {"json", ValueFormat::json}}),
        option<&ApplyOptions::columns>(
            "columns", "the columns that a node holds; empty: all that are not in its path"),
        option<&ApplyOptions::value>(
            "value",
            "instead of 'columns': the text that a node holds, with {column} in it, within "
            "quotation marks"),
        option<&ApplyOptions::tables>(
            "tables",
            "the tables whose changes are taken, as database.table; empty: that of "
            "'reconcile', or without that all"),
        option<&ApplyOptions::on_delete>("on_delete", "what becomes of the node of a row that goes")
            .choices({{"delete", OnDelete::remove}, {"keep", OnDelete::keep}}),
        option<&ApplyOptions::reconcile>(
            "reconcile",
            "mysql://user:password@host:port/database?table=NAME: the table with which the nodes "
            "are compared and repaired; empty: they are not")
            .secret(),
        option<&ApplyOptions::reconcile_every>(
            "reconcile_every", "how often after the start they are compared; \"0s\": only then")
            .between(Duration(0), std::chrono::hours(24)),
        option<&ApplyOptions::session_timeout>(
            "session_timeout",
            "a server that is silent for two thirds of it is given up for another")
            .between(std::chrono::seconds(1), std::chrono::minutes(10)),
        option<&ApplyOptions::auth>(
            "auth", "user:password (digest); the nodes that are made then belong to this user")
            .secret(),
        option<&ApplyOptions::readable>("readable",
                                        "with 'auth': everybody may read the nodes that are made"))
        .single("applies changes in their order")
        .checked(&ConfigZkApply::check))
