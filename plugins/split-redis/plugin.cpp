#include "millrace/plugin.h"

#include "claim.h"
#include "split_redis.h"

using namespace millrace;

namespace {
constexpr Duration kLongestTime = std::chrono::days(90);
constexpr const char* kServerHelp =
    "redis://[[user]:password@]host[:port][/database], rediss:// for TLS, or "
    "unix:///path[?db=database]; user and password are percent-encoded";
constexpr const char* kCaHelp =
    "with rediss://, a file with the certificates (PEM) of those who may vouch for the server; "
    "empty: "
    "those that the system trusts";
constexpr const char* kPrefixHelp = "first part of every key's name";
constexpr const char* kBucketsHelp =
    "hash tags over which sessions are spread, the same number in all processes; more than 1 only "
    "serves a Redis Cluster behind a proxy";
constexpr const char* kConnectHelp = "how long one attempt to connect may take";
constexpr const char* kTimeoutHelp =
    "how long Redis may take to answer; then the connection is made "
    "anew";
}  // namespace

MILLRACE_PLUGIN(
    "split-redis", MILLRACE_VERSION,
    transform<SplitRedis, SplitRedisOptions>(
        "split-redis", "Groups packets into sessions in Redis, and tells of them by tickets",
        option<&SplitRedisOptions::server>("server", kServerHelp).secret(),
        option<&SplitRedisOptions::ca>("ca", kCaHelp),
        option<&SplitRedisOptions::packets>("packets",
                                            "packets that make a session full, and due at once")
            .between(1, 65535),
        option<&SplitRedisOptions::delay>(
            "delay",
            "time after its first packet when a session takes no more packets, in the time "
            "of its own packets")
            .between(Duration(0), kLongestTime),
        option<&SplitRedisOptions::idle>(
            "idle",
            "a five-tuple that was due begins a new session when its next packet's time is more "
            "than this away from its last one's; a TCP SYN begins one at once")
            .between(Duration(0), kLongestTime),
        option<&SplitRedisOptions::keep>(
            "keep",
            "the lowest layer whose bytes are kept of each packet: l7 the transport payload, "
            "l4 from the transport header on, l2 the whole packet; a model needs the layer "
            "that its card names")
            .choices({{"l7", Layer::l7}, {"l4", Layer::l4}, {"l2", Layer::l2}}),
        option<&SplitRedisOptions::prefix>("prefix", kPrefixHelp),
        option<&SplitRedisOptions::buckets>("buckets", kBucketsHelp).between(1, 256),
        option<&SplitRedisOptions::expire>(
            "expire",
            "what a receiver leaves in Redis for itself (answers to its calls, tickets that may "
            "not "
            "be in the queue yet) expires after so long; sessions that wait never do")
            .between(std::chrono::seconds(10), kLongestTime),
        option<&SplitRedisOptions::remember>(
            "remember",
            "the mark of a done session is kept for 'idle' and so long after its last packet: a "
            "chunk that comes again within that time adds nothing")
            .between(Duration(0), kLongestTime),
        option<&SplitRedisOptions::max_memory>(
            "max_memory",
            "packets wait while Redis holds more bytes than this (an upload is answered 503 then); "
            "0: 80 % of Redis's own 'maxmemory', or half of its machine's memory if it has none"),
        option<&SplitRedisOptions::batch>(
            "batch",
            "packets that are sorted by session at a time: the more, the fewer times Redis has "
            "to look a session up")
            .between(1, 65536),
        option<&SplitRedisOptions::in_flight>(
            "in_flight", "script calls that may be unanswered when the next batch is sent")
            .between(1, 64),
        option<&SplitRedisOptions::sweep>(
            "sweep", "how often is looked for tickets that nobody has announced")
            .at_least(std::chrono::milliseconds(10)),
        option<&SplitRedisOptions::sweep_after>(
            "sweep_after", "tickets not known to be safe for so long are announced again")
            .at_least(std::chrono::milliseconds(10)),
        option<&SplitRedisOptions::known>(
            "known",
            "five-tuples of which this process remembers how their sessions stand, so that Redis "
            "need not be asked for each of their packets; about 150 bytes each")
            .between(0, 1U << 24U),
        option<&SplitRedisOptions::max_fragments>(
            "max_fragments",
            "fragmented IP packets remembered in this process, so that later fragments find their "
            "session; about 100 bytes each; 0: fragments but the first belong to no session")
            .between(0, 1U << 24U),
        option<&SplitRedisOptions::connect_timeout>("connect_timeout", kConnectHelp)
            .between(std::chrono::milliseconds(1), std::chrono::minutes(10)),
        option<&SplitRedisOptions::timeout>("timeout", kTimeoutHelp)
            .between(std::chrono::milliseconds(1), std::chrono::minutes(10)))
        .checked(&SplitRedis::check)
        .single("keeps the packets of an agent in order; run more processes instead")
        .aggregates(),
    transform<Claim, ClaimOptions>(
        "claim", "Fetches the sessions that tickets name, under a lease",
        option<&ClaimOptions::server>("server", kServerHelp).secret(),
        option<&ClaimOptions::ca>("ca", kCaHelp),
        option<&ClaimOptions::prefix>("prefix", kPrefixHelp),
        option<&ClaimOptions::buckets>("buckets", kBucketsHelp).between(1, 256),
        option<&ClaimOptions::lease>(
            "lease",
            "how long a session is this stage's alone: must be longer than a model and a "
            "store take; after it another may claim the session")
            .between(std::chrono::milliseconds(10), kLongestTime),
        option<&ClaimOptions::expire>(
            "expire", "has no effect: sessions that wait or are claimed do not expire")
            .between(std::chrono::seconds(10), kLongestTime),
        option<&ClaimOptions::overdue>(
            "overdue",
            "a session that is due so long and has not been claimed is claimed without its ticket")
            .between(std::chrono::milliseconds(10), kLongestTime),
        option<&ClaimOptions::retry>(
            "retry",
            "a ticket whose session is leased to another is given back after so long, or when the "
            "lease ends")
            .between(std::chrono::milliseconds(1), std::chrono::hours(1)),
        option<&ClaimOptions::batch>("batch", "sessions fetched at once").between(1, 4096),
        option<&ClaimOptions::connect_timeout>("connect_timeout", kConnectHelp)
            .between(std::chrono::milliseconds(1), std::chrono::minutes(10)),
        option<&ClaimOptions::timeout>("timeout", kTimeoutHelp)
            .between(std::chrono::milliseconds(1), std::chrono::minutes(10)))
        .checked(&check_claim_options))
