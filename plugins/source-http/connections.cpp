#include "connections.h"

#include <utility>

namespace millrace {

std::string Connections::network(const boost::asio::ip::address& address) {
  namespace ip = boost::asio::ip;
  if (address.is_v4()) return address.to_string();
  const ip::address_v6 six = address.to_v6();
  if (six.is_v4_mapped()) return ip::make_address_v4(ip::v4_mapped, six).to_string();
  // Whoever has one address of a /64 has all of them.
  ip::address_v6::bytes_type bytes = six.to_bytes();
  for (std::size_t i = 8; i < bytes.size(); ++i) bytes[i] = 0;
  return ip::address_v6(bytes).to_string() + "/64";
}

std::shared_ptr<Connections::Line> Connections::admit(std::string network,
                                                      std::function<void(Interrupt)> interrupt) {
  auto line = std::make_shared<Line>(std::move(network), std::move(interrupt));
  const std::lock_guard lock(mutex_);
  const std::list<Line*>* from = nullptr;
  if (const auto found = addresses_.find(line->address_);
      found != addresses_.end() && found->second.connections >= options_.address_connections) {
    from = &found->second.waiting;
  } else if (connections_ >= options_.max_connections) {
    from = &waiting_;
  }
  if (from != nullptr) {
    if (from->empty()) return nullptr;
    Line& oldest = *from->front();
    oldest.interrupt_(Interrupt::close);
    remove(oldest);
  }
  ++connections_;
  Address& address = addresses_[line->address_];
  ++address.connections;
  line->waits_ = true;
  line->in_all_ = waiting_.insert(waiting_.end(), line.get());
  line->in_address_ = address.waiting.insert(address.waiting.end(), line.get());
  return line;
}

void Connections::remove(Line& line) {
  if (std::exchange(line.gone_, true)) return;
  stop_waiting(line);
  --connections_;
  const auto found = addresses_.find(line.address_);
  if (--found->second.connections == 0) addresses_.erase(found);
}

void Connections::stop_waiting(Line& line) {
  if (!std::exchange(line.waits_, false)) return;
  waiting_.erase(line.in_all_);
  addresses_[line.address_].waiting.erase(line.in_address_);
}

void Connections::leave(Line& line) {
  const std::lock_guard lock(mutex_);
  remove(line);
}

bool Connections::busy(Line& line) {
  const std::lock_guard lock(mutex_);
  stop_waiting(line);
  return !line.gone_;
}

void Connections::waits(Line& line) {
  const std::lock_guard lock(mutex_);
  if (line.gone_) return;
  stop_waiting(line);
  line.waits_ = true;
  std::list<Line*>& waiting = addresses_[line.address_].waiting;
  line.in_all_ = waiting_.insert(waiting_.end(), &line);
  line.in_address_ = waiting.insert(waiting.end(), &line);
}

bool Connections::take_place(Line& line) {
  const std::lock_guard lock(mutex_);
  Address& address = addresses_[line.address_];
  if (uploading_.size() >= options_.max_uploads || address.uploads >= options_.address_uploads) {
    return false;
  }
  ++address.uploads;
  line.started_ = 0;
  line.reading_ = false;
  uploading_.push_back(&line);
  if (uploading_.size() == options_.max_uploads) full_since_ = SteadyClock::now();
  return true;
}

void Connections::give_back_place(Line& line) {
  const std::lock_guard lock(mutex_);
  --addresses_[line.address_].uploads;
  uploading_.remove(&line);
  full_since_ = {};
}

bool Connections::push_out_for(const Line& line) {
  // Shorter than the time in which 'min_rate' is demanded of everybody, long enough for a
  // beginning.
  constexpr std::chrono::seconds kBeginning{2};
  const std::lock_guard lock(mutex_);
  const bool only_mine = addresses_[line.address_].uploads >= options_.address_uploads;
  const SteadyClock::duration now = SteadyClock::now().time_since_epoch();
  Line* slowest = nullptr;
  double least = static_cast<double>(options_.min_rate.bytes);
  for (Line* other : uploading_) {
    if (!other->reading_ || other->pushed_out_) continue;
    if (only_mine && other->address_ != line.address_) continue;
    const SteadyClock::duration time = now - SteadyClock::duration(other->started_);
    if (time < kBeginning) continue;
    const double rate =
        static_cast<double>(other->got_) / std::chrono::duration<double>(time).count();
    if (rate >= least) continue;
    least = rate;
    slowest = other;
  }
  if (slowest == nullptr) return false;
  slowest->pushed_out_ = true;
  slowest->interrupt_(Interrupt::cancel);
  return true;
}

Connections::SteadyClock::time_point Connections::full_since() const {
  const std::lock_guard lock(mutex_);
  return full_since_;
}

}  // namespace millrace
