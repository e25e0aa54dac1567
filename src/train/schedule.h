#pragma once

#include <cstdint>
#include <string_view>

namespace triptych {

enum class ScheduleKind { kConstant, kLinear, kCosine };

/// @throws UsageError naming the allowed words.
ScheduleKind parse_schedule(std::string_view word);

/// The learning rate over a run. Warm-up is linear from 0; what follows falls from `peak` to `min`.
/// Source: transformers' get_{constant,linear,cosine}_schedule_with_warmup, with a floor.
struct Schedule {
  ScheduleKind kind = ScheduleKind::kCosine;
  double peak = 1e-5, min = 0;
  int64_t warmup_steps = 0;
  int64_t steps = 1;  ///< of the whole run

  /// The rate of the update that follows `done` finished ones: 0 <= done.
  double rate(int64_t done) const;
};

}  // namespace triptych
