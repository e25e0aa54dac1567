#include "parallel/model_groups.h"

#include "parallel/group.h"
#include "parallel/options.h"
#include "parallel/process_context.h"

namespace triptych {

namespace {
int64_t size_of(const Group* group) { return group == nullptr ? 1 : group->size(); }
int64_t rank_in(const Group* group) { return group == nullptr ? 0 : group->rank(); }
}  // namespace

int64_t ModelGroups::tensor_size() const { return size_of(tensor); }
int64_t ModelGroups::tensor_rank() const { return rank_in(tensor); }
int64_t ModelGroups::context_size() const { return size_of(context); }
int64_t ModelGroups::context_rank() const { return rank_in(context); }

bool ModelGroups::shares_pictures_over_data() const {
  return balance_vision == BalanceVision::kData && size_of(pictures) > 1;
}

ModelGroups ModelGroups::with_own_pictures() const {
  auto groups = *this;
  if (groups.balance_vision == BalanceVision::kData)
    groups.balance_vision = BalanceVision::kContext;
  return groups;
}

ModelGroups model_groups(ProcessContext& process, const ParallelOptions& options) {
  return {.tensor = &process.group(kTensorGroup),
          .sequence = options.sequence,
          .context = &process.group(kContextGroup),
          .ulysses = &process.group(kUlyssesGroup),
          .ring = &process.group(kRingGroup),
          .vision_context = options.vision_context,
          .balance_vision = options.balance_vision,
          // with connections of its own: the gradients' sums run beside
          .pictures = options.balance_vision == BalanceVision::kData
                          ? &process.group(kGradientGroup, "pictures")
                          : nullptr};
}

}  // namespace triptych
