#include <ATen/ATen.h>

#include <span>

#include "grid.h"
#include "kernels/rotary.h"
#include "kernels/varlen_attention.h"
#include "layers.h"
#include "nn/layer_norm.h"
#include "nn/linear.h"
#include "nn/modulation.h"
#include "nn/tensor_region.h"
#include "parallel/context_attention.h"
#include "parallel/row_exchange.h"

namespace triptych::video_transformer {

namespace {

constexpr double kEps = 1e-5;

std::vector<int64_t> values(const at::Tensor& host) {
  const auto flat = host.contiguous();
  return {flat.const_data_ptr<int64_t>(), flat.const_data_ptr<int64_t>() + flat.numel()};
}

at::Tensor host_bounds(const std::vector<int64_t>& bounds) { return at::tensor(bounds, at::kLong); }

/// Norm and adaLN modulation in front of a sub-layer, and the gate behind it; text and video tokens
/// have shifts, scales and gates of their own.
class AdaptiveNorm {
 public:
  AdaptiveNorm(ParameterBuilder& builder, const Options& o, const std::string& path)
      : region_(builder),
        norm_(builder, path + ".norm", "transformer", o.hidden, kEps),
        modulation_(builder, path + ".linear", "transformer", o.conditioning, o.hidden, 6,
                    Place::kBetween, o.init_std) {}

  struct Result {
    at::Tensor y_TD, gate_TD;
  };
  Result forward(const at::Tensor& x_TD, const Flow& flow) const {
    // [6, B, D]: shift, scale and gate of text, then of video -> [3, 2 B, D]
    const auto m_6BD = modulation_.forward(flow.at(field::kConditioning));
    const auto m_3ND = at::cat({m_6BD.narrow(0, 0, 3), m_6BD.narrow(0, 3, 3)}, 1);
    const auto rows_T = region_.own_tokens(flow.at(field::kModulationRows));
    const auto m_3TD = m_3ND.index_select(1, rows_T);
    return {norm_.forward(x_TD) * (m_3TD[1] + 1) + m_3TD[0], m_3TD[2]};
  }

  ParameterList parameters() const {
    return {norm_.weight, norm_.bias, modulation_.linear().weight, modulation_.linear().bias};
  }

 private:
  TensorRegion region_;
  LayerNorm norm_;
  Modulation modulation_;
};

void append(ParameterList& list, const ParameterList& more) {
  list.insert(list.end(), more.begin(), more.end());
}
void append(ParameterList& list, const Linear& linear) {
  list.push_back(linear.weight);
  list.push_back(linear.bias);
}

class JointBlock : public Layer {
 public:
  JointBlock(ParameterBuilder& builder, const Options& o, const std::string& path)
      : Layer(path, "transformer"),
        options_(o),
        groups_(builder.groups()),
        region_(builder),
        norm1_(builder, o, path + ".norm1"),
        norm2_(builder, o, path + ".norm2"),
        q_(builder, path + ".attn.q", "transformer", o.hidden, o.hidden, true,
           LinearSplit::column(o.head_dim()), o.init_std),
        k_(builder, path + ".attn.k", "transformer", o.hidden, o.hidden, true,
           LinearSplit::column(o.head_dim()), o.init_std),
        v_(builder, path + ".attn.v", "transformer", o.hidden, o.hidden, true,
           LinearSplit::column(o.head_dim()), o.init_std),
        out_(builder, path + ".attn.out", "transformer", o.hidden, o.hidden, true,
             LinearSplit::row(o.head_dim()), o.init_std),
        norm_q_(builder, path + ".attn.norm_q", "transformer", o.head_dim(), kEps,
                Place::kInRegion),
        norm_k_(builder, path + ".attn.norm_k", "transformer", o.head_dim(), kEps,
                Place::kInRegion),
        up_(builder, path + ".mlp.up", "transformer", o.hidden, o.mlp, true, LinearSplit::column(),
            o.init_std),
        down_(builder, path + ".mlp.down", "transformer", o.mlp, o.hidden, true, LinearSplit::row(),
              o.init_std) {
    append(parameters_, norm1_.parameters());
    append(parameters_, norm2_.parameters());
    append(parameters_, {norm_q_.weight, norm_q_.bias, norm_k_.weight, norm_k_.bias});
    for (const Linear* linear : {&q_, &k_, &v_, &out_, &up_, &down_}) append(parameters_, *linear);
  }

  void forward(Flow& flow) const override {
    const auto& x_TD = flow.at(field::kHidden);
    const auto& keys_T = flow.get(field::kDropoutKeys);
    const auto first = norm1_.forward(x_TD, flow);
    const auto h_TD = x_TD + first.gate_TD * attention(region_.enter(first.y_TD), flow, keys_T);
    const auto second = norm2_.forward(h_TD, flow);
    const auto act = at::gelu(up_.forward(region_.enter(second.y_TD), keys_T), "tanh");
    flow.set(field::kHidden, h_TD + second.gate_TD * down_.forward(act, keys_T));
  }

  Cost cost(const FlowSize& size) const override {
    const auto D = static_cast<double>(options_.hidden), I = static_cast<double>(options_.mlp);
    const auto T = static_cast<double>(size.tokens + size.patches);
    return {.forward_flop = 2 * T * (4 * D * D + 2 * D * I) + 4 * T * size.mean_square_length * D};
  }

 private:
  at::Tensor attention(const at::Tensor& y_TD, const Flow& flow, const at::Tensor& keys_T) const {
    const auto heads = [&](const Linear& linear) {
      return linear.forward(y_TD, keys_T).unflatten(-1, {-1, options_.head_dim()});
    };
    const auto [q_THK, k_THK] = rotary_qk(norm_q_.forward(heads(q_)), norm_k_.forward(heads(k_)),
                                          flow.at(field::kCos), flow.at(field::kSin));
    const auto a_THK = context_attention(q_THK, k_THK, heads(v_), flow.at(field::kBounds), groups_,
                                         {.causal = false});
    return out_.forward(a_THK.flatten(-2), keys_T);
  }

  Options options_;
  ModelGroups groups_;
  TensorRegion region_;
  AdaptiveNorm norm1_, norm2_;
  Linear q_, k_, v_, out_;
  LayerNorm norm_q_, norm_k_;
  Linear up_, down_;
};

/// Values go through attention within their frame, the result through attention along time with the
/// same queries and keys. Over context ranks video tokens lie by frames for the first, by places
/// for the second: one switch of the split dimension between them (arXiv:2403.10266).
class AxesBlock : public Layer {
 public:
  AxesBlock(ParameterBuilder& builder, const Options& o, const std::string& path)
      : Layer(path, "transformer"),
        options_(o),
        groups_(builder.groups()),
        region_(builder),
        norm_(builder, o, path + ".norm1"),
        qkv_(builder, path + ".attn.qkv", "transformer", o.hidden, 3 * o.hidden, true,
             LinearSplit::column(o.head_dim(), /*sections=*/3), o.init_std),
        out_(builder, path + ".attn.out", "transformer", o.hidden, o.hidden, true,
             LinearSplit::row(o.head_dim()), o.init_std) {
    append(parameters_, norm_.parameters());
    append(parameters_, qkv_);
    append(parameters_, out_);
  }

  void forward(Flow& flow) const override {
    const auto& x_TD = flow.at(field::kHidden);
    const auto& keys_T = flow.get(field::kDropoutKeys);
    const auto [y_TD, gate_TD] = norm_.forward(x_TD, flow);
    const auto qkv_T3HK =
        qkv_.forward(region_.enter(y_TD), keys_T).unflatten(-1, {3, -1, options_.head_dim()});
    flow.set(field::kHidden,
             x_TD + gate_TD * out_.forward(attention(qkv_T3HK, flow).flatten(-2), keys_T));
  }

  Cost cost(const FlowSize& size) const override {
    const auto D = static_cast<double>(options_.hidden);
    return {.forward_flop = 8 * static_cast<double>(size.tokens + size.patches) * D * D};
  }

 private:
  at::Tensor attention(const at::Tensor& qkv_T3HK, const Flow& flow) const {
    const int64_t rank = groups_.context_rank();
    const auto split = grid_split(flow);
    const auto qkv = to_grid(qkv_T3HK, flow);
    const auto q = qkv.select(1, 0), k = qkv.select(1, 1), v = qkv.select(1, 2);
    const auto within = varlen_attention(q, k, v, host_bounds(split.frame_bounds(rank)));
    const auto by_places = switch_to_places(at::stack({q, k, within}, 1), split);
    const auto along =
        varlen_attention(by_places.select(1, 0), by_places.select(1, 1), by_places.select(1, 2),
                         host_bounds(split.place_bounds(rank)));
    return from_grid(along, qkv_T3HK.size(0), flow);
  }

  GridSplit grid_split(const Flow& flow) const {
    const auto sizes = values(flow.at(field::kGrids));
    std::vector<Grid> grids;
    for (size_t i = 0; i < sizes.size(); i += 2) grids.push_back({sizes[i], sizes[i + 1]});
    return {std::move(grids), groups_.context_size()};
  }

  /// Rows to the ranks that need them, in the order in which they are needed.
  at::Tensor route(const at::Tensor& x, const at::Tensor& rows, const at::Tensor& counts,
                   const at::Tensor& order) const {
    if (groups_.context_size() == 1) return x.index_select(0, rows).index_select(0, order);
    return route_rows(x, {.rows = rows, .send = values(counts[0]), .receive = values(counts[1])},
                      *groups_.context)
        .index_select(0, order);
  }

  at::Tensor to_grid(const at::Tensor& x_T, const Flow& flow) const {
    return route(x_T, flow.at(field::kToGridRows), flow.at(field::kToGridCounts),
                 flow.at(field::kToGridOrder));
  }

  /// [tokens by frames, ...] -> [tokens by places, ...], sample by sample.
  at::Tensor switch_to_places(const at::Tensor& x, const GridSplit& split) const {
    const auto rank = static_cast<size_t>(groups_.context_rank());
    std::vector<at::Tensor> samples;
    int64_t first = 0;
    for (const auto& grid : split.grids()) {
      const auto frames = split.frames(grid);
      const int64_t count = frames[rank] * grid.places;
      auto shape = x.sizes().vec();
      shape[0] = grid.places;
      shape.insert(shape.begin(), frames[rank]);
      auto x_FS = x.narrow(0, first, count).reshape(shape);
      if (groups_.context_size() > 1)
        x_FS = switch_dim(x_FS, 0, 1, frames, split.places(grid), *groups_.context);
      samples.push_back(x_FS.transpose(0, 1).flatten(0, 1));
      first += count;
    }
    return at::cat(samples);
  }

  /// Back among the rows of the joint sequence; text tokens get zeros.
  at::Tensor from_grid(const at::Tensor& o, int64_t T, const Flow& flow) const {
    const auto rows = route(o, flow.at(field::kFromGridRows), flow.at(field::kFromGridCounts),
                            flow.at(field::kFromGridOrder));
    auto shape = rows.sizes().vec();
    shape[0] = T;
    return at::zeros(shape, rows.options().requires_grad(false))
        .index_copy(0, flow.at(field::kVideoRows), rows);
  }

  Options options_;
  ModelGroups groups_;
  TensorRegion region_;
  AdaptiveNorm norm_;
  Linear qkv_, out_;
};

}  // namespace

std::unique_ptr<Layer> make_joint_block(ParameterBuilder& builder, const Options& options,
                                        const std::string& path) {
  return std::make_unique<JointBlock>(builder, options, path);
}

std::unique_ptr<Layer> make_axes_block(ParameterBuilder& builder, const Options& options,
                                       const std::string& path) {
  return std::make_unique<AxesBlock>(builder, options, path);
}

}  // namespace triptych::video_transformer
