#include "table_reader.h"

#include <chrono>
#include <stdexcept>

#include <fmt/format.h>

namespace millrace {

namespace {

constexpr std::chrono::seconds kConnectTimeout{5};
constexpr std::chrono::seconds kAnswerTimeout{30};

std::string quoted(std::string_view name) {
  std::string text = "`";
  for (const char c : name) text += c == '`' ? "``" : std::string(1, c);
  return text + '`';
}

std::vector<std::string> all_columns(Connection& connection, const TableAddress& address) {
  std::vector<std::string> names;
  for (const Connection::Row& row :
       connection.query("SHOW COLUMNS FROM " + quoted(address.table))) {
    names.push_back(row.at(0).value_or(""));
  }
  return names;
}

}  // namespace

TableAddress parse_table_address(std::string_view url) {
  TableAddress address;
  const std::size_t mark = url.find('?');
  std::string server(url.substr(0, mark));
  std::string_view rest = mark == std::string_view::npos ? "" : url.substr(mark + 1);
  while (!rest.empty()) {
    const std::size_t end = rest.find('&');
    const std::string_view item = rest.substr(0, end);
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    const std::size_t equals = item.find('=');
    const std::string_view name = item.substr(0, equals);
    const std::string_view value = equals == std::string_view::npos ? "" : item.substr(equals + 1);
    if (name == "table") {
      address.table = value;
    } else if (name == "socket") {
      server += fmt::format("?socket={}", value);
    } else if (name == "tls" && (value == "off" || value == "required" || value == "verify")) {
      address.server.tls = value == "off"        ? Tls::off
                           : value == "required" ? Tls::required
                                                 : Tls::verify;
    } else if (name == "tls_ca") {
      address.server.tls_ca = value;
    } else {
      throw std::invalid_argument(
          "behind ? may stand table=NAME, tls=off, tls=required or tls=verify, tls_ca=FILE and "
          "socket=/path, with & between them");
    }
  }
  address.server.address = parse_server_address(server);
  if (address.table.empty()) {
    throw std::invalid_argument("the table is missing; expected ?table=NAME at the end");
  }
  address.server.connect_timeout = kConnectTimeout;
  address.server.read_timeout = address.server.write_timeout = kAnswerTimeout;
  return address;
}

std::vector<Change::Row> read_table(const TableAddress& address,
                                    const std::optional<std::vector<std::string>>& columns) {
  Connection connection;
  connection.open(address.server);
  const std::vector<std::string> names = columns ? *columns : all_columns(connection, address);
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : ", ") + quoted(name);
  std::vector<Change::Row> rows;
  for (Connection::Row& values :
       connection.query(fmt::format("SELECT {} FROM {}", list, quoted(address.table)))) {
    Change::Row& row = rows.emplace_back();
    for (std::size_t i = 0; i < names.size(); ++i) {
      row.emplace_back(names[i], std::move(values.at(i)));
    }
  }
  return rows;
}

}  // namespace millrace
