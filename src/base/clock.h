#pragma once

#include <cstdint>
#include <string>

namespace triptych {

/// Seconds on a clock that never jumps; only differences mean something.
double steady_seconds();

/// Seconds since 1970-01-01 00:00 UTC.
double wall_seconds();

/// "2026-11-24T08:15:30.123+00:00" for a number of wall seconds; as a file name may hold it, with
/// `compact`: "20261124T081530Z".
std::string utc_time(double wall_seconds);
std::string utc_time_compact(double wall_seconds);

/// "18m20s", "3h05m", "42s", "2d04h"; "--:--" for a negative or non-finite number.
std::string duration_text(double seconds);

}  // namespace triptych
