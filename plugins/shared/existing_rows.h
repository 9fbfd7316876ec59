#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "millrace/context.h"
#include "millrace/verdict.h"

namespace millrace {

/// What becomes of the label in a session's row when another one comes.
enum class OnExisting : std::uint8_t {
  keep,         ///< the first one stays
  other_model,  ///< it is replaced by one of another model, or of another version of it
  replace       ///< it is replaced
};

/// Of the option `on_existing`.
inline constexpr const char* kOnExistingMeaning =
    "what becomes of the label in a session's row when another one comes: \"keep\" it stays, "
    "\"other-model\" one of another model, or of another version of it, replaces it, \"replace\" "
    "the newest one always does; a warning tells how many. A row without a label takes any";

/// The answer that a row holds. A row without a label takes any.
struct StoredAnswer {
  std::string_view label;
  std::string_view model;
  std::string_view model_version;
};

/// Whether the row is to have the verdict's answer instead of its own. Both have a label. Never
/// true for the same label of the same model: a delivery that comes twice changes nothing.
[[nodiscard]] bool replaces(OnExisting on_existing, const StoredAnswer& row,
                            const Verdict& verdict);
/// Whether the row's answer is another one than the verdict's.
[[nodiscard]] bool differs(const StoredAnswer& row, const Verdict& verdict);

/// Rows of one transaction that had another answer, by the models of both.
struct OtherAnswers {
  struct Models {
    std::string old_model;
    std::string old_version;
    std::string new_model;
    std::string new_version;
    friend auto operator<=>(const Models&, const Models&) = default;
  };
  using Counts = std::map<Models, std::uint64_t>;

  Counts replaced;
  Counts kept;

  void add(bool is_replaced, const StoredAnswer& row, const Verdict& verdict,
           std::uint64_t rows = 1);
  [[nodiscard]] std::uint64_t replaced_rows() const;
};

/// Counts such rows and warns of them: at once, then once a minute, and at the end.
class OtherAnswersReport {
 public:
  void open(Context& context);
  /// After the transaction.
  void add(const OtherAnswers& rows);
  /// Tells what was not told yet.
  void flush();

 private:
  Context* context_ = nullptr;
  Counter* relabelled_ = nullptr;
  Counter* other_label_ = nullptr;
  OtherAnswers untold_;
  Timestamp next_ = kNoTime;
};

}  // namespace millrace
