#include "binlog_decoder.h"

#include <algorithm>
#include <iterator>
#include <stdexcept>
#include <utility>

#include <fmt/format.h>

#include "statement.h"

namespace millrace {

namespace {

constexpr std::size_t kHeadBytes = 19;
constexpr std::size_t kShown = 100;  ///< bytes of a statement in a message

/// What an event holds behind its head, without the checksum.
std::span<const std::uint8_t> body_of(const MARIADB_RPL_EVENT& event) {
  constexpr std::size_t kChecksumBytes = 4;
  const std::size_t before = event.raw_data_ofs + kHeadBytes;
  const std::size_t behind = event.rpl->use_checksum != 0 ? kChecksumBytes : 0;
  if (event.raw_data_size < before + behind) throw std::runtime_error("the event ends too early");
  return {event.raw_data + before, event.raw_data_size - before - behind};
}

std::string_view text_of(const MARIADB_STRING& text) { return {text.str, text.length}; }

Gtid gtid_of(const MARIADB_RPL_EVENT& event) {
  return {event.event.gtid.domain_id, event.server_id, event.event.gtid.sequence_nr};
}

Change::Kind kind_of(mariadb_row_event_type type) {
  switch (type) {
    case WRITE_ROWS:
      return Change::Kind::inserted;
    case UPDATE_ROWS:
      return Change::Kind::updated;
    case DELETE_ROWS:
      break;
  }
  return Change::Kind::deleted;
}

RowEvent rows_of(const MARIADB_RPL_EVENT& event) {
  const st_mariadb_rpl_rows_event& rows = event.event.rows;
  RowEvent result;
  result.kind = kind_of(rows.type);
  result.columns = rows.column_count;
  const std::size_t size = (result.columns + 7) / 8;
  // The table's number, flags, and how many columns there are, are before the bitmaps.
  constexpr std::size_t kBefore = 9;
  const std::size_t bitmaps = rows.column_update_bitmap != nullptr ? 2 : 1;
  if (body_of(event).size() < kBefore + bitmaps * size) {
    throw std::runtime_error("the event ends too early");
  }
  result.present = {rows.column_bitmap, size};
  if (rows.column_update_bitmap != nullptr)
    result.present_after = {rows.column_update_bitmap, size};
  result.rows = {static_cast<const std::uint8_t*>(rows.row_data), rows.row_data_size};
  return result;
}

}  // namespace

void Portion::append(Portion more) {
  changes.insert(changes.end(), std::make_move_iterator(more.changes.begin()),
                 std::make_move_iterator(more.changes.end()));
  bytes += more.bytes;
  if (more.position) position = std::move(more.position);
}

BinlogDecoder::BinlogDecoder(const BinlogOptions& options, Context& context, Describe describe)
    : batch_(options.batch),
      on_bad_(options.on_bad),
      tables_(options.tables.begin(), options.tables.end()),
      context_(&context),
      describe_(std::move(describe)),
      transactions_(&context.counter("transactions")) {}

void BinlogDecoder::begin(std::optional<GtidPosition> position) {
  position_ = std::move(position);
  open_.reset();
  known_.clear();
}

Portion BinlogDecoder::portion() { return std::exchange(portion_, Portion()); }

void BinlogDecoder::take(const MARIADB_RPL_EVENT& event) {
  switch (event.event_type) {
    case GTID_LIST_EVENT:
      return take_list(event);
    case GTID_EVENT:
      return take_gtid(event);
    case FORMAT_DESCRIPTION_EVENT:
      // A new file, which begins in the midst of a transaction only if the server has crashed in
      // it.
      known_.clear();
      return roll_back();
    case TABLE_MAP_EVENT:
      return take_table(event);
    case WRITE_ROWS_EVENT_V1:
    case UPDATE_ROWS_EVENT_V1:
    case DELETE_ROWS_EVENT_V1:
    case WRITE_ROWS_COMPRESSED_EVENT_V1:
    case UPDATE_ROWS_COMPRESSED_EVENT_V1:
    case DELETE_ROWS_COMPRESSED_EVENT_V1:
      return take_rows(event);
    case QUERY_EVENT:
    case QUERY_COMPRESSED_EVENT:
      return take_statement(text_of(event.event.query.statement));
    case EXECUTE_LOAD_QUERY_EVENT:
      return take_changing_statement(text_of(event.event.execute_load_query.statement));
    case XID_EVENT:
    case XA_PREPARE_LOG_EVENT:
      return commit();
    default:
      return;  // heartbeats, names of files, variables of statements
  }
}

void BinlogDecoder::take_unknown(std::string_view problem) {
  unreadable(fmt::format("an event cannot be read: {}", problem));
}

void BinlogDecoder::take_list(const MARIADB_RPL_EVENT& event) {
  // At the beginning of the oldest file stands what was before it.
  if (position_ || (event.flags & LOG_EVENT_ARTIFICIAL_F) != 0) return;
  position_.emplace();
  const st_mariadb_rpl_gtid_list_event& list = event.event.gtid_list;
  for (std::uint32_t i = 0; i < list.gtid_cnt; ++i) {
    position_->advance({list.gtid[i].domain_id, list.gtid[i].server_id, list.gtid[i].sequence_nr});
  }
  portion_.position = position_;
}

void BinlogDecoder::take_gtid(const MARIADB_RPL_EVENT& event) {
  constexpr std::size_t kMostTables = 4096;
  roll_back();
  // Tables come again with every statement, and under new ids as the server opens them.
  if (known_.size() > kMostTables) known_.clear();
  open_ = OpenTransaction{};
  open_->gtid = gtid_of(event);
  open_->single = (event.event.gtid.flags & FL_STANDALONE) != 0;
  open_->prepared = (event.event.gtid.flags & FL_PREPARED_XA) != 0;
}

bool BinlogDecoder::wants(const std::string& database, const std::string& table) const {
  return tables_.empty() || tables_.contains(database + '.' + table);
}

void BinlogDecoder::take_table(const MARIADB_RPL_EVENT& event) {
  const std::span<const std::uint8_t> body = body_of(event);
  TableMap map = read_table_name(body);
  const auto known = known_.find(map.id);
  if (known != known_.end() && known->second.map.database == map.database &&
      known->second.map.table == map.table) {
    return;
  }
  Known table;
  table.wanted = wants(map.database, map.table);
  if (table.wanted) {
    try {
      map = read_table_map(body);
      describe_(map);
    } catch (const ServerError&) {
      throw;
    } catch (const std::runtime_error& error) {
      table.problem = error.what();
    }
  }
  const std::uint64_t id = map.id;
  table.map = std::move(map);
  known_.insert_or_assign(id, std::move(table));
}

void BinlogDecoder::take_rows(const MARIADB_RPL_EVENT& event) {
  const auto known = known_.find(event.event.rows.table_id);
  if (known == known_.end()) {
    // The server marks the end of a statement by an event of a table that is none.
    if (event.event.rows.row_data_size != 0) {
      unreadable("rows of a table cannot be read: the log does not tell which one it is");
    }
    return;
  }
  const Known& table = known->second;
  if (!table.wanted) return context_->dropped("table", 1);
  const std::string name = fmt::format("rows of {}.{}", table.map.database, table.map.table);
  if (!table.problem.empty()) return unreadable(name + " cannot be read: " + table.problem);
  if (open_ && open_->prepared) {
    return unreadable(name +
                      " cannot be read: they are of an XA transaction, which are not supported");
  }
  std::vector<Change> changes;
  try {
    changes = read_rows(table.map, rows_of(event));
  } catch (const std::runtime_error& error) {
    return unreadable(name + " cannot be read: " + error.what());
  }
  if (!open_) return unreadable(name + " cannot be read: they are of a transaction without a GTID");
  // Not before there is more: the end of a transaction goes on together with its position.
  if (open_->changes.size() >= batch_) give_on();
  open_->bytes += event.raw_data_size;
  std::move(changes.begin(), changes.end(), std::back_inserter(open_->changes));
}

void BinlogDecoder::take_statement(std::string_view statement) {
  switch (statement_kind(statement)) {
    case StatementKind::commit:
      return commit();
    case StatementKind::roll_back:
      roll_back();
      return commit();
    case StatementKind::control:
      if (open_ && open_->single) commit();
      return;
    case StatementKind::change:
      take_changing_statement(statement);
      break;
    case StatementKind::ddl:
      context_->dropped("ddl", 1);
      warn_of_rows_that_went(statement);
      known_.clear();
      break;
  }
  if (open_ && open_->single) commit();
}

void BinlogDecoder::take_changing_statement(std::string_view statement) {
  const auto named = [statement](const std::string& table) {
    return has_word(statement, table.substr(table.find('.') + 1));
  };
  if (!tables_.empty() && std::none_of(tables_.begin(), tables_.end(), named)) {
    return context_->dropped("table", 1);
  }
  unreadable(
      fmt::format("a statement was logged in place of the rows that it changed: '{}{}'; set "
                  "binlog_format = ROW, for the server and for sessions that set it "
                  "themselves",
                  statement.substr(0, kShown), statement.size() > kShown ? "..." : ""));
}

/// TRUNCATE and DROP take rows that no event tells of.
void BinlogDecoder::warn_of_rows_that_went(std::string_view statement) {
  if (!has_word(statement, "truncate") && !has_word(statement, "drop")) return;
  for (const std::string& table : tables_) {
    if (!has_word(statement, table.substr(table.find('.') + 1))) continue;
    context_->warning(fmt::format(
        "'{}': rows of {} went without a change of their own, so what was made of them stays",
        statement.substr(0, kShown), table));
  }
}

void BinlogDecoder::give_on() {
  Portion portion;
  portion.changes = std::exchange(open_->changes, {});
  portion.bytes = std::exchange(open_->bytes, 0);
  portion_.append(std::move(portion));
}

void BinlogDecoder::commit() {
  if (!open_) return;
  give_on();
  if (!position_) position_.emplace();
  position_->advance(open_->gtid);
  portion_.position = position_;
  open_.reset();
  transactions_->add();
}

void BinlogDecoder::roll_back() {
  if (!open_) return;
  if (!open_->changes.empty()) context_->dropped("rolled-back", open_->changes.size());
  open_->changes.clear();
  open_->bytes = 0;
}

void BinlogDecoder::unreadable(const std::string& what) {
  const std::string where = open_ ? fmt::format("transaction {}-{}-{}: ", open_->gtid.domain,
                                                open_->gtid.server, open_->gtid.sequence)
                                  : std::string();
  if (on_bad_ == OnBad::stop) {
    throw std::runtime_error(
        fmt::format("{}{}; with on_bad = \"skip\" it is counted and passed over", where, what));
  }
  context_->dropped("unreadable", 1);
  context_->error(where + what);
}

}  // namespace millrace
