#pragma once

#include <cstdint>
#include <string_view>

#include "base/json.h"

namespace triptych::insight {

struct PickleLimits {
  size_t values = 50'000'000;  ///< objects made
  int depth = 200;             ///< when turned into JSON
};

/// Reads a pickle of plain data (dict, list, tuple, str, int, float, bool, None; protocols 0 binary
/// forms to 5). Opcodes that name or call anything (GLOBAL, REDUCE, BUILD, ...) are refused:
/// nothing is ever executed. Shared objects are copied; cycles are refused.
/// @throws DataError "origin: byte N: ..." on anything else.
Json read_pickle(std::string_view bytes, std::string_view origin, const PickleLimits& limits = {});

}  // namespace triptych::insight
