#include "parallel/batch_plan.h"

#include <algorithm>
#include <cmath>
#include <string>

namespace triptych {

void validate(const BatchPlan& plan, Problems& problems) {
  if (plan.global_batch < 1 || plan.micro_batch < 1 || plan.data < 1) {
    problems.add("train: global_batch ", plan.global_batch, ", micro_batch ", plan.micro_batch,
                 " and data-parallel ranks ", plan.data, " must be at least 1");
    return;
  }
  const int64_t unit = plan.micro_batch * plan.data;
  const int64_t below = plan.global_batch / unit * unit;
  problems.check(plan.global_batch % unit == 0, "train.global_batch ", plan.global_batch,
                 " is not divisible by micro_batch ", plan.micro_batch, " * data-parallel ranks ",
                 plan.data, " = ", unit,
                 "; nearest: ", below > 0 ? std::to_string(below) + ", " : "", below + unit);
}

LabelCounts& LabelCounts::operator+=(const LabelCounts& other) {
  tokens += other.tokens;
  samples += other.samples;
  roots += other.roots;
  micro_batches += other.micro_batches;
  return *this;
}

LabelCounts count_labels(std::span<const int64_t> label_tokens) {
  LabelCounts counts{.micro_batches = 1};
  for (const auto n : label_tokens) {
    counts.tokens += static_cast<double>(n);
    counts.samples += n > 0 ? 1 : 0;
    counts.roots += std::sqrt(static_cast<double>(n));
  }
  return counts;
}

double token_weight(LossAverage rule, const LabelCounts& step, const LabelCounts& micro_batch,
                    int64_t sample) {
  const auto n = static_cast<double>(sample);
  double divisor = 0;
  switch (rule) {
    case LossAverage::kToken:
      divisor = step.tokens;
      break;
    case LossAverage::kMicroBatch:
      divisor = step.micro_batches * micro_batch.tokens;
      break;
    case LossAverage::kSample:
      divisor = step.samples * n;
      break;
    case LossAverage::kSquare:
      divisor = std::sqrt(n) * step.roots;
      break;
  }
  return divisor > 0 ? 1.0 / divisor : 0.0;
}

}  // namespace triptych
