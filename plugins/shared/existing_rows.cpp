#include "existing_rows.h"

#include <chrono>
#include <numeric>

#include <fmt/format.h>

namespace millrace {

namespace {

std::uint64_t sum(const OtherAnswers::Counts& counts) {
  return std::accumulate(counts.begin(), counts.end(), std::uint64_t{0},
                         [](std::uint64_t all, const auto& entry) { return all + entry.second; });
}

std::string model_name(const std::string& model, const std::string& version) {
  return fmt::format("the model '{}' version '{}'", model, version);
}

std::string sessions(std::uint64_t count) {
  return count == 1 ? std::string("1 session") : fmt::format("{} sessions", count);
}

}  // namespace

bool differs(const StoredAnswer& row, const Verdict& verdict) {
  return row.label != verdict.label || row.model != verdict.model ||
         row.model_version != verdict.model_version;
}

bool replaces(OnExisting on_existing, const StoredAnswer& row, const Verdict& verdict) {
  switch (on_existing) {
    case OnExisting::keep:
      return false;
    case OnExisting::other_model:
      return row.model != verdict.model || row.model_version != verdict.model_version;
    case OnExisting::replace:
      return differs(row, verdict);
  }
  return false;
}

void OtherAnswers::add(bool is_replaced, const StoredAnswer& row, const Verdict& verdict,
                       std::uint64_t rows) {
  Counts& counts = is_replaced ? replaced : kept;
  counts[{std::string(row.model), std::string(row.model_version), std::string(verdict.model),
          std::string(verdict.model_version)}] += rows;
}

std::uint64_t OtherAnswers::replaced_rows() const { return sum(replaced); }

void OtherAnswersReport::open(Context& context) {
  context_ = &context;
  relabelled_ = &context.counter("relabelled");
  other_label_ = &context.counter("other-label");
}

void OtherAnswersReport::add(const OtherAnswers& rows) {
  if (rows.replaced.empty() && rows.kept.empty()) return;
  relabelled_->add(sum(rows.replaced));
  other_label_->add(sum(rows.kept));
  for (const auto& [models, count] : rows.replaced) untold_.replaced[models] += count;
  for (const auto& [models, count] : rows.kept) untold_.kept[models] += count;
  const Timestamp now = context_->clock().now();
  if (next_ != kNoTime && now < next_) return;
  next_ = now + std::chrono::minutes(1);
  flush();
}

void OtherAnswersReport::flush() {
  for (const auto& [models, count] : untold_.replaced) {
    context_->warning(fmt::format(
        "{} had a label of {}: now that of {} (on_existing = \"keep\" leaves such rows as they "
        "are)",
        sessions(count), model_name(models.old_model, models.old_version),
        model_name(models.new_model, models.new_version)));
  }
  for (const auto& [models, count] : untold_.kept) {
    const bool same =
        models.old_model == models.new_model && models.old_version == models.new_version;
    context_->warning(
        same ? fmt::format("{} already had another label of {}, which stays: give a model that was "
                           "trained anew another version in its card, or set on_existing = "
                           "\"replace\"",
                           sessions(count), model_name(models.old_model, models.old_version))
             : fmt::format("{} already had a label of {}, which stays; that of {} is not stored "
                           "(on_existing = \"replace\" stores it)",
                           sessions(count), model_name(models.old_model, models.old_version),
                           model_name(models.new_model, models.new_version)));
  }
  untold_ = {};
}

}  // namespace millrace
