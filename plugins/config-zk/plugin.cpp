#include "millrace/plugin.h"

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
        .checked(&ConfigZk::check))
