#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "millrace/receipt.h"
#include "millrace/time.h"

namespace millrace {

struct ItemType;

/// What every batch has, whatever its items are. The host moves batches about by this part and by
/// the functions of `type`.
struct BatchBase {
  /// No earlier packet will come, apart from those with wrong times. It rises along an edge and
  /// falls only where the time of the packets was set back; sources make it with PacketClock
  /// (packet_clock.h). kStreamEnds there: what comes next does not continue what came before.
  Timestamp watermark = kNoTime;
  /// Empty in a batch that a transform makes: then the host gives it a share of the receipt of the
  /// input that is being processed.
  Receipt receipt;
  /// Owns what the items' views and spans point to; shared by copies of the batch. Immutable.
  std::shared_ptr<const void> storage;
  /// Memory behind `storage` in bytes, for the byte limits of queues.
  std::size_t storage_bytes = 0;

  [[nodiscard]] const ItemType& type() const noexcept { return *type_; }

 protected:
  explicit BatchBase(const ItemType& type) noexcept : type_(&type) {}
  BatchBase(BatchBase&&) noexcept = default;
  BatchBase& operator=(BatchBase&&) noexcept = default;
  ~BatchBase() = default;

 private:
  const ItemType* type_;
};

struct DeleteBatch {
  void operator()(BatchBase* batch) const noexcept;
};
/// A batch on the heap, as it waits in a queue.
using BoxedBatch = std::unique_ptr<BatchBase, DeleteBatch>;

/// What the host can do with items whose type it does not know. Two types are the same when their
/// names and sizes are.
struct ItemType {
  std::string_view name;
  std::size_t size;
  void (*destroy)(BatchBase*) noexcept;
  BoxedBatch (*empty)();
  BoxedBatch (*box)(BatchBase&&);
  /// Copies the items and shares the storage; the copy has no receipt.
  BoxedBatch (*clone)(const BatchBase&);
  std::size_t (*count)(const BatchBase&) noexcept;
  /// Moves the items at `positions` (ascending) into a batch of their own, without a receipt.
  BoxedBatch (*extract)(BatchBase&, std::span<const std::size_t> positions);
  /// Moves everything of `from` to the end of `into`; receipts and storages are joined.
  void (*append)(BatchBase& into, BatchBase&& from);
  /// Appends the item as one JSON value, for dead letters.
  void (*describe)(const BatchBase&, std::size_t position, std::string& json);

  friend bool operator==(const ItemType& a, const ItemType& b) noexcept {
    return a.name == b.name && a.size == b.size;
  }
};

inline void DeleteBatch::operator()(BatchBase* batch) const noexcept {
  batch->type().destroy(batch);
}

/// Specialise for every item type:
/// `static constexpr std::string_view name` (unique, "project.Type") and
/// `static void describe(const T&, std::string& json)`.
template <class T>
struct ItemTraits;

template <class T>
const ItemType& item_type() noexcept;

/// Items of one type, the watermark that holds after them, and their receipt. Views inside the
/// items stay valid as long as the batch, or a copy of its `storage`, lives.
template <class T>
struct Batch : BatchBase {
  Batch() noexcept : BatchBase(item_type<T>()) {}
  explicit Batch(std::vector<T> list) noexcept
      : BatchBase(item_type<T>()), items(std::move(list)) {}

  std::vector<T> items;
};

namespace detail {

/// One owner for two storages.
inline std::shared_ptr<const void> join_storage(std::shared_ptr<const void> a,
                                                std::shared_ptr<const void> b) {
  if (!a || a == b) return b;
  if (!b) return a;
  return std::make_shared<std::pair<std::shared_ptr<const void>, std::shared_ptr<const void>>>(
      std::move(a), std::move(b));
}

template <class T>
struct ItemFunctions {
  static Batch<T>& cast(BatchBase& batch) noexcept { return static_cast<Batch<T>&>(batch); }
  static const Batch<T>& cast(const BatchBase& batch) noexcept {
    return static_cast<const Batch<T>&>(batch);
  }

  static void destroy(BatchBase* batch) noexcept { delete &cast(*batch); }

  static BoxedBatch empty() { return BoxedBatch(new Batch<T>()); }

  static BoxedBatch box(BatchBase&& batch) {
    return BoxedBatch(new Batch<T>(std::move(cast(batch))));
  }

  static BoxedBatch clone(const BatchBase& batch) {
    auto copy = std::make_unique<Batch<T>>(cast(batch).items);
    copy->watermark = batch.watermark;
    copy->storage = batch.storage;
    copy->storage_bytes = batch.storage_bytes;
    return BoxedBatch(copy.release());
  }

  static std::size_t count(const BatchBase& batch) noexcept { return cast(batch).items.size(); }

  static BoxedBatch extract(BatchBase& batch, std::span<const std::size_t> positions) {
    auto taken = std::make_unique<Batch<T>>();
    taken->watermark = batch.watermark;
    taken->storage = batch.storage;
    auto& items = cast(batch).items;
    std::vector<T> rest;
    rest.reserve(items.size() - positions.size());
    std::size_t next = 0;
    for (std::size_t i = 0; i < items.size(); ++i) {
      const bool take = next < positions.size() && positions[next] == i;
      if (take) ++next;
      (take ? taken->items : rest).push_back(std::move(items[i]));
    }
    items = std::move(rest);
    return BoxedBatch(taken.release());
  }

  static void append(BatchBase& into, BatchBase&& from) {
    auto& target = cast(into).items;
    auto& source = cast(from).items;
    target.insert(target.end(), std::make_move_iterator(source.begin()),
                  std::make_move_iterator(source.end()));
    source.clear();
    if (from.watermark != kNoTime) into.watermark = from.watermark;
    into.storage = join_storage(std::move(into.storage), std::move(from.storage));
    into.storage_bytes += std::exchange(from.storage_bytes, 0);
    std::vector<Receipt> parts;
    parts.push_back(std::move(into.receipt));
    parts.push_back(std::move(from.receipt));
    into.receipt = Receipt::join(std::move(parts));
  }

  static void describe(const BatchBase& batch, std::size_t position, std::string& json) {
    ItemTraits<T>::describe(cast(batch).items[position], json);
  }
};

}  // namespace detail

template <class T>
const ItemType& item_type() noexcept {
  using F = detail::ItemFunctions<T>;
  static constexpr ItemType type{
      ItemTraits<T>::name, sizeof(T), F::destroy, F::empty, F::box, F::clone, F::count,
      F::extract,          F::append, F::describe};
  return type;
}

}  // namespace millrace
