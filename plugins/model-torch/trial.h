#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "backend.h"
#include "card.h"

namespace millrace {

/// Asks a model that has just been loaded about made-up sessions, `rows` at a time as later on, so
/// that what is wrong with it shows before the first session. Returns what is worth a warning.
/// Throws ModelError with what is wrong: it does not take what its card says; it gives something
/// else than the card says; an answer depends on more than its session (dropout or batch norm
/// saved while training).
[[nodiscard]] std::vector<std::string> try_model(Model& model, const Card& card, std::size_t rows);

}  // namespace millrace
