#pragma once

#include <cstdint>
#include <span>

#include "base/error.h"

namespace triptych {

/// Which sample of an optimizer step goes where, so that the set of samples of a step, and the
/// order in which a rank sees its own, do not depend on the layout: sample g goes to data rank
/// (g / b) mod d, into its micro-batch g / (b d).
struct BatchPlan {
  int64_t global_batch = 1;  ///< samples (or packs) per optimizer step over all ranks
  int64_t micro_batch = 1;   ///< b
  int64_t data = 1;          ///< d, data-parallel ranks

  int64_t micro_batches() const { return global_batch / (micro_batch * data); }

  struct Place {
    int64_t data_rank = 0, micro_batch = 0, row = 0;
    friend bool operator==(const Place&, const Place&) = default;
  };
  /// Where sample g of the step goes, 0 <= g < global_batch.
  Place place(int64_t g) const {
    return {g / micro_batch % data, g / (micro_batch * data), g % micro_batch};
  }
  /// The inverse of `place`.
  int64_t sample(const Place& at) const {
    return (at.micro_batch * data + at.data_rank) * micro_batch + at.row;
  }
};

/// Rule M2: the global batch must be a multiple of micro-batch times data ranks.
void validate(const BatchPlan& plan, Problems& problems);

/// `train.loss_average`: what one label token weighs in the loss of an optimizer step.
enum class LossAverage : uint8_t { kToken, kMicroBatch, kSample, kSquare };

/// Counts of one micro-batch, of one rank or, added up, of the whole step. Labels are known before
/// any compute; the sum over the data and context ranks is taken once at the start of the step.
struct LabelCounts {
  double tokens = 0;         ///< label tokens
  double samples = 0;        ///< samples that have at least one label token
  double roots = 0;          ///< sum over samples of sqrt(label tokens), for kSquare
  double micro_batches = 0;  ///< all of them: one without labels counts with loss 0

  LabelCounts& operator+=(const LabelCounts& other);
};

/// The counts of one micro-batch from the number of label tokens of each of its samples.
LabelCounts count_labels(std::span<const int64_t> label_tokens);

/// The weight of one label token: the loss of a step is the sum over all its label tokens, on all
/// ranks and in all micro-batches, of weight x cross entropy; gradients are then summed over ranks,
/// never averaged.
///
///   token        1 / N                        N label tokens of the step
///   micro_batch  1 / (M n)                    M micro-batches of the step, n label tokens of this
///   one sample       1 / (S n)                    S samples of the step, n label tokens of this
///   one square       n^-1/2 / sum over samples of n^1/2
///
/// @param step         counts of the whole step over all ranks
/// @param micro_batch  counts of the token's micro-batch (over context ranks)
/// @param sample       label tokens of the token's sample
/// @return 0 when there is nothing to average over.
double token_weight(LossAverage rule, const LabelCounts& step, const LabelCounts& micro_batch,
                    int64_t sample);

}  // namespace triptych
