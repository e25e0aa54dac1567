#include "parallel/collectives.h"

#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/grad_mode.h>

#include "base/error.h"
#include "parallel/exchange_parts.h"
#include "parallel/group.h"

namespace triptych {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

// ---- the operations themselves; each result has memory of its own

/// A contiguous copy that a collective may change: autograd, or the caller, may still hold `x`.
at::Tensor own_copy(const at::Tensor& x) { return x.is_contiguous() ? x.clone() : x.contiguous(); }

at::Tensor sum(const at::Tensor& x, Group& group, const char* tag) {
  auto result = own_copy(x);
  finish(group.all_reduce_async(result, ReduceOp::kSum, tag), group);
  return result;
}

at::Tensor gather(const at::Tensor& x, Group& group, const char* tag) {
  auto sizes = x.sizes().vec();
  sizes[0] *= group.size();
  auto result = at::empty(sizes, x.options());
  finish(group.all_gather_into_async(result, x.contiguous(), tag), group);
  return result;
}

std::vector<int64_t> part_sizes(const at::Tensor& x, const Group& group) {
  auto sizes = x.sizes().vec();
  require(!sizes.empty() && sizes[0] % group.size() == 0, "group ", group.name(), ": ", x.sizes(),
          " is not divisible by its ", group.size(), " ranks in dim 0");
  sizes[0] /= group.size();
  return sizes;
}

at::Tensor scatter_sum(const at::Tensor& x, Group& group, const char* tag) {
  auto result = at::empty(part_sizes(x, group), x.options());
  finish(group.reduce_scatter_into_async(result, x.contiguous(), tag), group);
  return result;
}

at::Tensor own_part(const at::Tensor& x, const Group& group) {
  const int64_t n = part_sizes(x, group)[0];
  return own_copy(x.narrow(0, group.rank() * n, n));  // the rest of x can be freed
}

// ---- forward and backward pairs

struct CopyToRanks : Function<CopyToRanks> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, Group* group) {
    keep_group(ctx, group);
    return x.view_as(x);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    return {sum(grads[0], group_of(ctx), "copy_to_ranks backward"), {}};
  }
};

struct ReduceFromRanks : Function<ReduceFromRanks> {
  static at::Tensor forward(AutogradContext* /*ctx*/, const at::Tensor& x, Group* group) {
    return sum(x, *group, "reduce_from_ranks");
  }
  static variable_list backward(AutogradContext* /*ctx*/, const variable_list& grads) {
    return {grads[0], {}};
  }
};

struct GatherTokens : Function<GatherTokens> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, Group* group) {
    keep_group(ctx, group);
    return gather(x, *group, "gather_tokens");
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    return {scatter_sum(grads[0], group_of(ctx), "gather_tokens backward"), {}};
  }
};

struct ScatterSumTokens : Function<ScatterSumTokens> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, Group* group) {
    keep_group(ctx, group);
    return scatter_sum(x, *group, "scatter_sum_tokens");
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    return {gather(grads[0], group_of(ctx), "scatter_sum_tokens backward"), {}};
  }
};

struct SplitTokens : Function<SplitTokens> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, Group* group) {
    keep_group(ctx, group);
    return own_part(x, *group);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    return {gather(grads[0], group_of(ctx), "split_tokens backward"), {}};
  }
};

struct GatherTokensReplicated : Function<GatherTokensReplicated> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, Group* group) {
    keep_group(ctx, group);
    return gather(x, *group, "gather_tokens_replicated");
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    return {own_part(grads[0], group_of(ctx)), {}};
  }
};

/// `Function` on more than one rank, else nothing.
template <class Pair>
at::Tensor apply(const at::Tensor& x, Group* group) {
  if (group == nullptr || group->size() == 1) return x;
  return Pair::apply(x, group);
}

}  // namespace

at::Tensor copy_to_ranks(const at::Tensor& x, Group* group) { return apply<CopyToRanks>(x, group); }
at::Tensor reduce_from_ranks(const at::Tensor& x, Group* group) {
  return apply<ReduceFromRanks>(x, group);
}
at::Tensor gather_tokens(const at::Tensor& x, Group* group) {
  return apply<GatherTokens>(x, group);
}
at::Tensor scatter_sum_tokens(const at::Tensor& x, Group* group) {
  return apply<ScatterSumTokens>(x, group);
}
at::Tensor split_tokens(const at::Tensor& x, Group* group) { return apply<SplitTokens>(x, group); }
at::Tensor gather_tokens_replicated(const at::Tensor& x, Group* group) {
  return apply<GatherTokensReplicated>(x, group);
}

}  // namespace triptych
