#include "parallel/row_exchange.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <numeric>
#include <utility>

#include "base/error.h"
#include "parallel/exchange_parts.h"

namespace triptych {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor exchanged(const at::Tensor& x, const Counts& send, const Counts& receive, Group& group,
                     const char* tag) {
  auto sizes = x.sizes().vec();
  sizes[0] = sum(receive);
  const auto result = at::empty(sizes, x.options());
  finish(group.all_to_all_async(result, x.contiguous(), receive, send, tag), group);
  return result;
}

class ExchangeRows : public torch::autograd::Function<ExchangeRows> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const Counts& send,
                            const Counts& receive, int64_t group) {
    ctx->saved_data["send"] = send;
    ctx->saved_data["receive"] = receive;
    ctx->saved_data["group"] = group;
    return exchanged(x, send, receive, group_of(ctx), "rows");
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const at::NoGradGuard no_grad;
    return {exchanged(grads[0], ctx->saved_data["receive"].toIntVector(),
                      ctx->saved_data["send"].toIntVector(), group_of(ctx), "rows, backward"),
            {},
            {},
            {}};
  }
};

class RouteRows : public torch::autograd::Function<RouteRows> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& rows,
                            const Counts& send, const Counts& receive, int64_t group) {
    ctx->save_for_backward({rows});
    ctx->saved_data["sizes"] = x.sizes().vec();
    ctx->saved_data["send"] = send;
    ctx->saved_data["receive"] = receive;
    ctx->saved_data["group"] = group;
    return exchanged(x.index_select(0, rows), send, receive, group_of(ctx), "route");
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const at::NoGradGuard no_grad;
    const auto home =
        exchanged(grads[0], ctx->saved_data["receive"].toIntVector(),
                  ctx->saved_data["send"].toIntVector(), group_of(ctx), "route, backward");
    const auto dx = at::zeros(ctx->saved_data["sizes"].toIntVector(), home.options());
    dx.index_add_(0, ctx->get_saved_variables()[0], home);
    return {dx, {}, {}, {}, {}};
  }
};

/// Parts of x along `dim`, each as rows of one flat buffer, by member.
at::Tensor flat_parts(const at::Tensor& x, int64_t dim, const Counts& sizes) {
  std::vector<at::Tensor> parts;
  int64_t begin = 0;
  for (const auto n : sizes) {
    parts.push_back(x.narrow(dim, begin, n).reshape({-1}));
    begin += n;
  }
  return at::cat(parts);
}

/// Elements of x beside the dims a and b.
int64_t other_elements(const at::Tensor& x, int64_t a, int64_t b) {
  int64_t product = 1;
  for (int64_t d = 0; d < x.dim(); ++d) {
    if (d != a && d != b) product *= x.size(d);
  }
  return product;
}

/// What came flat from all members, put together along `dim`, of which member i sent sizes[i].
/// @param shape  of a piece, but for `dim`.
at::Tensor joined(const at::Tensor& flat, Counts shape, int64_t dim, const Counts& sizes) {
  std::vector<at::Tensor> parts;
  int64_t begin = 0;
  shape[dim] = 1;
  int64_t others = 1;
  for (const auto size : shape) others *= size;
  for (const auto size : sizes) {
    shape[dim] = size;
    parts.push_back(flat.narrow(0, begin, others * size).view(shape));
    begin += others * size;
  }
  return at::cat(parts, dim);
}

at::Tensor switched(const at::Tensor& x, int64_t from, int64_t to, const Counts& from_sizes,
                    const Counts& to_sizes, Group& group) {
  const int64_t me = group.rank(), others = other_elements(x, from, to);
  Counts send, receive;
  for (int64_t i = 0; i < group.size(); ++i) {
    send.push_back(others * from_sizes[me] * to_sizes[i]);
    receive.push_back(others * from_sizes[i] * to_sizes[me]);
  }
  const auto flat = exchanged(flat_parts(x, to, to_sizes), send, receive, group, "switch");
  auto shape = x.sizes().vec();
  shape[to] = to_sizes[me];
  return joined(flat, std::move(shape), from, from_sizes);
}

class SwitchDim : public torch::autograd::Function<SwitchDim> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, int64_t from, int64_t to,
                            const Counts& from_sizes, const Counts& to_sizes, int64_t group) {
    ctx->saved_data["from"] = from;
    ctx->saved_data["to"] = to;
    ctx->saved_data["from_sizes"] = from_sizes;
    ctx->saved_data["to_sizes"] = to_sizes;
    ctx->saved_data["group"] = group;
    return switched(x, from, to, from_sizes, to_sizes, group_of(ctx));
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const at::NoGradGuard no_grad;
    auto& data = ctx->saved_data;
    return {
        switched(grads[0], data["to"].toInt(), data["from"].toInt(), data["to_sizes"].toIntVector(),
                 data["from_sizes"].toIntVector(), group_of(ctx)),
        {},
        {},
        {},
        {},
        {}};
  }
};

at::Tensor my_part(const at::Tensor& x, int64_t dim, const Counts& sizes, int64_t me) {
  const int64_t begin = std::accumulate(sizes.begin(), sizes.begin() + me, int64_t{0});
  return x.narrow(dim, begin, sizes[me]);
}

at::Tensor gathered(const at::Tensor& x, int64_t dim, const Counts& sizes, Group& group) {
  require(x.size(dim) == sizes[group.rank()], "gather of ", group.name(), ": dim ", dim, " of ",
          x.sizes(), " must have size ", sizes[group.rank()]);
  // the same rows for everyone: an all-to-all copes with parts of different size
  const std::vector<at::Tensor> copies(static_cast<size_t>(group.size()), x.reshape({-1}));
  const int64_t others = other_elements(x, dim, dim);
  Counts receive;
  for (const auto n : sizes) receive.push_back(others * n);
  const Counts send(sizes.size(), x.numel());
  return joined(exchanged(at::cat(copies), send, receive, group, "gather"), x.sizes().vec(), dim,
                sizes);
}

template <bool kSplit>
class SplitOrGather : public torch::autograd::Function<SplitOrGather<kSplit>> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, int64_t dim,
                            const Counts& sizes, int64_t group) {
    ctx->saved_data["dim"] = dim;
    ctx->saved_data["sizes"] = sizes;
    ctx->saved_data["group"] = group;
    return run(kSplit, x, dim, sizes, group_of(ctx));
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const at::NoGradGuard no_grad;
    return {run(!kSplit, grads[0], ctx->saved_data["dim"].toInt(),
                ctx->saved_data["sizes"].toIntVector(), group_of(ctx)),
            {},
            {},
            {}};
  }

 private:
  static at::Tensor run(bool split, const at::Tensor& x, int64_t dim, const Counts& sizes,
                        Group& group) {
    return split ? my_part(x, dim, sizes, group.rank()).contiguous()
                 : gathered(x, dim, sizes, group);
  }
};

}  // namespace

at::Tensor exchange_rows(const at::Tensor& x_RD, const std::vector<int64_t>& send,
                         const std::vector<int64_t>& receive, Group& group) {
  if (group.size() == 1) return x_RD;
  return ExchangeRows::apply(x_RD, send, receive, as_number(&group));
}

at::Tensor route_rows(const at::Tensor& x_RD, const RowRoute& route, Group& group) {
  return RouteRows::apply(x_RD, route.rows, route.send, route.receive, as_number(&group));
}

at::Tensor switch_dim(const at::Tensor& x, int64_t from, int64_t to,
                      const std::vector<int64_t>& from_sizes, const std::vector<int64_t>& to_sizes,
                      Group& group) {
  const auto me = static_cast<size_t>(group.rank());
  require(from != to && static_cast<int64_t>(from_sizes.size()) == group.size() &&
              static_cast<int64_t>(to_sizes.size()) == group.size() &&
              x.size(from) == from_sizes[me] && x.size(to) == sum(to_sizes),
          "switch of ", group.name(), ": ", x.sizes(), " must hold part ", me, " of dim ", from,
          " and the whole of dim ", to);
  if (group.size() == 1) return x;
  return SwitchDim::apply(x, from, to, from_sizes, to_sizes, as_number(&group));
}

at::Tensor split_dim(const at::Tensor& x, int64_t dim, const std::vector<int64_t>& sizes,
                     Group& group) {
  require(x.size(dim) == sum(sizes), "split of ", group.name(), ": dim ", dim, " of ", x.sizes(),
          " must have size ", sum(sizes));
  if (group.size() == 1) return x;
  return SplitOrGather<true>::apply(x, dim, sizes, as_number(&group));
}

at::Tensor gather_dim(const at::Tensor& x, int64_t dim, const std::vector<int64_t>& sizes,
                      Group& group) {
  if (group.size() == 1) return x;
  return SplitOrGather<false>::apply(x, dim, sizes, as_number(&group));
}

std::vector<std::vector<int64_t>> gather_lists(const std::vector<int64_t>& mine, Group& group,
                                               at::Device device) {
  if (group.size() == 1) return {mine};
  if (device.is_meta()) {  // a plan counts the two exchanges
    for (const auto n : {int64_t{1}, static_cast<int64_t>(mine.size())}) {
      const auto part = at::empty({n}, at::TensorOptions(device).dtype(at::kLong));
      group.all_gather_into(at::empty({group.size() * n}, part.options()), part, "lists");
    }
    return std::vector<std::vector<int64_t>>(static_cast<size_t>(group.size()), mine);
  }
  const auto gathered_of = [&](const at::Tensor& part) {
    const auto whole = at::empty({group.size() * part.size(0)}, part.options());
    group.all_gather_into(whole, part, "lists");
    return whole.cpu();
  };
  const auto length = at::empty({1}, at::kLong).fill_(static_cast<int64_t>(mine.size()));
  const auto lengths = gathered_of(length.to(device));
  const auto* count = lengths.const_data_ptr<int64_t>();
  const auto most = lengths.max().item<int64_t>();
  auto padded = at::zeros({most}, at::kLong);
  std::copy(mine.begin(), mine.end(), padded.mutable_data_ptr<int64_t>());
  const auto all = gathered_of(padded.to(device));
  const auto* values = all.const_data_ptr<int64_t>();
  std::vector<std::vector<int64_t>> lists;
  for (int64_t i = 0; i < group.size(); ++i)
    lists.emplace_back(values + i * most, values + i * most + count[i]);
  return lists;
}

}  // namespace triptych
