#include "parallel/model_groups.h"

#include "parallel/group.h"
#include "parallel/options.h"
#include "parallel/process_context.h"
#include "parallel/weight_gradients.h"

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
          .sequence = options.sequence && options.tensor > 1,
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

std::shared_ptr<WeightGradients> weight_gradients_beside(const ModelGroups& groups,
                                                         const ParallelOptions& options) {
  // About the matrices of one block: what they need for their products is kept that much longer.
  constexpr size_t kMostWaiting = 8;
  if (!options.overlap || options.schedule == PipelineOrder::kZeroBubbleH1) return nullptr;
  std::shared_ptr<WeightGradients> products;
  for (auto* group : {groups.tensor, groups.context, groups.ulysses, groups.ring}) {
    if (size_of(group) == 1) continue;
    if (!products) {
      products = std::make_shared<WeightGradients>();
      products->keep_for_exchanges(kMostWaiting);
    }
    group->keep_busy_with(products);
  }
  return products;
}

}  // namespace triptych
