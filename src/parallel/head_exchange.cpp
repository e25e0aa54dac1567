// T own tokens   S tokens of all ranks   H, G query and key/value heads   K head dim
// Own heads of a rank: n = queries + keys + values, one behind the other in a token.

#include "parallel/head_exchange.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "parallel/exchange_parts.h"

namespace triptych {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Sizes of one exchange in elements, and how they lie in the flat buffers.
struct Exchange {
  Counts tokens;  ///< of each rank
  Counts heads;   ///< of each rank, n
  int64_t K, me;

  /// Elements of own tokens for the heads of each rank.
  Counts by_heads() const {
    Counts counts;
    for (const auto n : heads) counts.push_back(tokens[me] * n * K);
    return counts;
  }
  /// Elements of each rank's tokens for own heads.
  Counts by_tokens() const {
    Counts counts;
    for (const auto t : tokens) counts.push_back(t * heads[me] * K);
    return counts;
  }
  /// Flat blocks [T, n of each rank, K] -> [S, own n, K].
  at::Tensor to_tokens(const at::Tensor& flat, Group& group, const char* tag) const {
    const auto all = at::empty({sum(tokens), heads[me], K}, flat.options());
    finish(group.all_to_all_async(all.view(-1), flat, by_tokens(), by_heads(), tag), group);
    return all;
  }
  /// [S, own n, K] -> flat blocks [T, n of each rank, K].
  at::Tensor to_heads(const at::Tensor& all_SnK, Group& group, const char* tag) const {
    const auto flat = at::empty({tokens[me] * sum(heads) * K}, all_SnK.options());
    finish(
        group.all_to_all_async(flat, all_SnK.contiguous().view(-1), by_heads(), by_tokens(), tag),
        group);
    return flat;
  }
  /// The block of own tokens for the heads of one rank.
  at::Tensor block(const at::Tensor& flat, int64_t rank) const {
    const int64_t before = std::accumulate(heads.begin(), heads.begin() + rank, int64_t{0});
    return flat.narrow(0, tokens[me] * before * K, tokens[me] * heads[rank] * K)
        .view({tokens[me], heads[rank], K});
  }
};

Exchange exchange_of_qkv(const HeadSplit& split, const Counts& tokens, int64_t K, int64_t me) {
  Exchange exchange{.tokens = tokens, .heads = {}, .K = K, .me = me};
  for (int64_t r = 0; r < split.ranks(); ++r) exchange.heads.push_back(split.sent_heads(r));
  return exchange;
}

Exchange exchange_of_out(const HeadSplit& split, const Counts& tokens, int64_t K, int64_t me) {
  Exchange exchange{.tokens = tokens, .heads = {}, .K = K, .me = me};
  for (int64_t r = 0; r < split.ranks(); ++r) exchange.heads.push_back(split.queries(r).size());
  return exchange;
}

at::Tensor heads(const at::Tensor& x_THK, HeadSplit::Range range) {
  return x_THK.narrow(1, range.begin, range.size());
}

class ScatterHeads : public torch::autograd::Function<ScatterHeads> {
 public:
  static variable_list forward(AutogradContext* ctx, const at::Tensor& q, const at::Tensor& k,
                               const at::Tensor& v, const Counts& tokens, int64_t group_number) {
    ctx->saved_data["tokens"] = tokens;
    ctx->saved_data["group"] = group_number;
    ctx->saved_data["sizes"] = Counts{q.size(1), k.size(1), q.size(2)};
    auto& group = group_of(ctx);
    const HeadSplit split(q.size(1), k.size(1), group.size());
    const auto exchange = exchange_of_qkv(split, tokens, q.size(2), group.rank());
    const auto flat = at::empty({q.size(0) * sum(exchange.heads) * exchange.K}, q.options());
    for (int64_t r = 0; r < split.ranks(); ++r) {
      auto block = exchange.block(flat, r);
      at::cat_out(
          block, {heads(q, split.queries(r)), heads(k, split.keys(r)), heads(v, split.keys(r))}, 1);
    }
    const auto all_SnK = exchange.to_tokens(flat, group, "heads of q, k, v");
    const int64_t H = split.queries(group.rank()).size(), G = split.keys(group.rank()).size();
    return {all_SnK.narrow(1, 0, H), all_SnK.narrow(1, H, G), all_SnK.narrow(1, H + G, G)};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const at::NoGradGuard no_grad;
    auto& group = group_of(ctx);
    const auto sizes = ctx->saved_data["sizes"].toIntVector();
    const HeadSplit split(sizes[0], sizes[1], group.size());
    const auto exchange =
        exchange_of_qkv(split, ctx->saved_data["tokens"].toIntVector(), sizes[2], group.rank());
    const auto flat = exchange.to_heads(at::cat({grads[0], grads[1], grads[2]}, 1), group,
                                        "heads of q, k, v, backward");
    const auto part = [&](int64_t number) {
      return at::zeros({exchange.tokens[exchange.me], number, exchange.K}, flat.options());
    };
    const auto dq = part(sizes[0]), dk = part(sizes[1]), dv = part(sizes[1]);
    for (int64_t r = 0; r < split.ranks(); ++r) {
      const auto block = exchange.block(flat, r);
      const int64_t H = split.queries(r).size(), G = split.keys(r).size();
      heads(dq, split.queries(r)).copy_(block.narrow(1, 0, H));
      heads(dk, split.keys(r)).add_(block.narrow(1, H, G));
      heads(dv, split.keys(r)).add_(block.narrow(1, H + G, G));
    }
    return {dq, dk, dv, {}, {}};
  }
};

class GatherHeads : public torch::autograd::Function<GatherHeads> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& o, int64_t query_heads,
                            const Counts& tokens, int64_t group_number) {
    ctx->saved_data["tokens"] = tokens;
    ctx->saved_data["group"] = group_number;
    ctx->saved_data["heads"] = query_heads;
    auto& group = group_of(ctx);
    const HeadSplit split(query_heads, query_heads, group.size());
    const auto exchange = exchange_of_out(split, tokens, o.size(2), group.rank());
    const auto flat = exchange.to_heads(o, group, "heads of the output");
    std::vector<at::Tensor> blocks;
    for (int64_t r = 0; r < split.ranks(); ++r) blocks.push_back(exchange.block(flat, r));
    return at::cat(blocks, 1);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const at::NoGradGuard no_grad;
    auto& group = group_of(ctx);
    const auto& g = grads[0];
    const HeadSplit split(ctx->saved_data["heads"].toInt(), ctx->saved_data["heads"].toInt(),
                          group.size());
    const auto exchange =
        exchange_of_out(split, ctx->saved_data["tokens"].toIntVector(), g.size(2), group.rank());
    const auto flat = at::empty({g.numel()}, g.options());
    for (int64_t r = 0; r < split.ranks(); ++r)
      exchange.block(flat, r).copy_(heads(g, split.queries(r)));
    return {exchange.to_tokens(flat, group, "heads of the output, backward"), {}, {}, {}};
  }
};

void check_tokens(const at::Tensor& x, const Counts& tokens, const Group& group, int64_t mine) {
  require(static_cast<int64_t>(tokens.size()) == group.size() && tokens[group.rank()] == mine,
          "ulysses of ", group.name(), ": ", x.sizes(), " on rank ", group.rank(), " of ",
          group.size(), " does not fit the list of tokens");
}

}  // namespace

HeadSplit::HeadSplit(int64_t query_heads, int64_t key_value_heads, int64_t ranks)
    : query_heads_(query_heads), key_value_heads_(key_value_heads) {
  require(key_value_heads > 0 && query_heads % key_value_heads == 0, "ulysses: query heads ",
          query_heads, " must be a multiple of key/value heads ", key_value_heads);
  const int64_t group = query_heads / key_value_heads;
  int64_t begin = 0;
  for (int64_t r = 0; r < ranks; ++r) {
    const int64_t end = begin + query_heads / ranks + (r < query_heads % ranks ? 1 : 0);
    queries_.push_back({begin, end});
    keys_.push_back(end > begin ? Range{begin / group, (end - 1) / group + 1} : Range{0, 0});
    begin = end;
  }
}

std::vector<int64_t> HeadSplit::uneven_groups(int64_t rank) const {
  const auto own = queries_[rank];
  if (own.size() == 0) return {};
  const int64_t group = query_heads_ / key_value_heads_, keys = keys_[rank].size();
  std::vector<int64_t> key_of_query;
  for (int64_t h = own.begin; h < own.end; ++h)
    key_of_query.push_back(h / group - keys_[rank].begin);
  const bool even = own.size() % keys == 0 && [&] {
    for (int64_t h = 0; h < own.size(); ++h) {
      if (key_of_query[h] != h / (own.size() / keys)) return false;
    }
    return true;
  }();
  return even ? std::vector<int64_t>() : key_of_query;
}

HeadShare scatter_heads(const at::Tensor& q_THK, const at::Tensor& k_TGK, const at::Tensor& v_TGK,
                        const std::vector<int64_t>& tokens, Group& group) {
  if (group.size() == 1) return {q_THK, k_TGK, v_TGK};
  check_tokens(q_THK, tokens, group, q_THK.size(0));
  const auto parts = ScatterHeads::apply(q_THK, k_TGK, v_TGK, tokens, as_number(&group));
  HeadShare share{parts[0], parts[1], parts[2]};
  const auto uneven =
      HeadSplit(q_THK.size(1), k_TGK.size(1), group.size()).uneven_groups(group.rank());
  if (!uneven.empty()) {  // a head of keys for every head of queries
    const auto index = at::tensor(uneven, at::kLong).to(q_THK.device());
    share.k = share.k.index_select(1, index);
    share.v = share.v.index_select(1, index);
  }
  return share;
}

at::Tensor gather_heads(const at::Tensor& o_SHK, int64_t query_heads,
                        const std::vector<int64_t>& tokens, Group& group) {
  if (group.size() == 1) return o_SHK;
  require(o_SHK.size(0) == sum(tokens), "ulysses of ", group.name(), ": ", o_SHK.sizes(),
          " must hold ", sum(tokens), " tokens");
  return GatherHeads::apply(o_SHK, query_heads, tokens, as_number(&group));
}

}  // namespace triptych
