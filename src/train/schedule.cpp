#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace triptych {

ScheduleKind parse_schedule(std::string_view word) {
  if (word == "constant") return ScheduleKind::kConstant;
  if (word == "linear") return ScheduleKind::kLinear;
  if (word == "cosine") return ScheduleKind::kCosine;
  fail<UsageError>("schedule.name = \"", word,
                   "\" is not known; allowed: constant, linear, cosine");
}

double Schedule::rate(int64_t done) const {
  if (done < warmup_steps)
    return peak * static_cast<double>(done) / static_cast<double>(warmup_steps);
  if (kind == ScheduleKind::kConstant) return peak;
  const auto after_warmup = static_cast<double>(std::max<int64_t>(1, steps - warmup_steps));
  const double progress = std::min(1.0, static_cast<double>(done - warmup_steps) / after_warmup);
  const double share = kind == ScheduleKind::kLinear
                           ? 1 - progress
                           : 0.5 * (1 + std::cos(std::numbers::pi * progress));
  return min + (peak - min) * share;
}

}  // namespace triptych
