#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "insight/run.h"

namespace triptych::insight {

// Events that a saved report carries one by one, so that its page can search, add up, draw arrows
// and zoom to the nanosecond without a server (web/src/held.ts reads them).

/// Files whose events fit: `full_rank` whatever its size (up to 4 million events), then the ranks
/// of `first`, then the others by number, as long as no more than `most` events are taken.
std::vector<int> files_to_hold(const Run& run, int64_t most, std::optional<int64_t> full_rank,
                               const std::vector<int64_t>& first);

/// What the columns of one file are about:
/// {"file","rank","events","tracks":[{"id","rows":[number of events of each depth]}],
///  "steps":[[number, begin_ns, end_ns]],"long_names":{"id": text}}. Events are numbered through
///  the
/// tracks and rows in this order; names longer than strings_json gives them stand in long_names.
Json held_events(const Run& run, int file);

/// The columns, as LEB128 numbers one after another ("signed": zigzag): number of events N; N
/// starts (the first of a row signed, ns as elsewhere in the report; others since the one before);
/// N durations; N names; N parents (own number minus the parent's; 0: none); N categories; N kinds
/// of work; number of arrows F; F pairs (from, signed to - from).
std::string held_columns(const Run& run, int file);

}  // namespace triptych::insight
