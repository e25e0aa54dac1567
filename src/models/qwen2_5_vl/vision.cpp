// Vision tower of Qwen2.5-VL: windowed and full attention over patches of native resolution.
// Source: transformers, modeling_qwen2_5_vl.py; report arXiv:2502.13923.
//
// P patches of all pictures, in window order inside the tower; between matrices those of this rank
// C cells of M = 4 patches   F values of a patch   E hidden size   D text hidden size
// H heads, I MLP size on this rank   K head dim

#include "models/qwen2_5_vl/vision.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/gelu.h>

#include "kernels/rms_norm.h"
#include "kernels/rotary.h"
#include "kernels/swiglu.h"
#include "kernels/varlen_attention.h"
#include "models/qwen2_5_vl/fields.h"
#include "nn/linear.h"
#include "nn/rms_norm.h"
#include "nn/tensor_region.h"
#include "parallel/context_attention.h"
#include "parallel/row_exchange.h"
#include "parallel/segments.h"

namespace triptych::qwen2_5_vl {

namespace {

std::vector<int64_t> host_values(const at::Tensor& host) {
  const auto* values = host.const_data_ptr<int64_t>();
  return {values, values + host.numel()};
}

/// Moves the M patches of each cell together: row c of the result is cell index[c].
at::Tensor permute_cells(const at::Tensor& x_PE, const at::Tensor& index_C, int64_t M) {
  const int64_t P = x_PE.size(0), E = x_PE.size(1);
  return x_PE.reshape({P / M, M * E}).index_select(0, index_C).reshape({-1, E});
}

class PatchEmbed : public Layer {
 public:
  PatchEmbed(ParameterBuilder& builder, const Options& options)
      : Layer("visual.patch_embed", "vision"), options_(options.vision), region_(builder) {
    const auto& v = options_;
    weight_ = builder.make(
        "visual.patch_embed.proj.weight", "vision",
        {v.hidden_size, v.in_channels, v.temporal_patch_size, v.patch_size, v.patch_size},
        {Parameter::Init::Kind::kNormal, options.text.initializer_range},
        {.split = {}, .sum_over_tensor = region_.tokens_split()});
    parameters_ = {weight_};
  }

  void forward(Flow& flow) const override {
    const auto& pixels_PF = flow.get(field::kPixels);
    if (!pixels_PF.defined()) return;
    // Stride equals kernel size, so the convolution is one matrix product.
    const auto& index_C = flow.at(field::kWindowIndex);
    const auto embed = [&](const at::Tensor& x_PF) {
      return linear(x_PF.to(weight_->value.scalar_type()), *weight_);
    };
    const auto own_C = region_.own_tokens(index_C);
    flow.set(field::kVisionHidden,
             region_.tokens_split()
                 ? embed(permute_cells(pixels_PF, own_C, options_.cell_patches()))
                 : permute_cells(embed(pixels_PF), index_C, options_.cell_patches()));
    flow.erase(field::kPixels);
  }

  Cost cost(const FlowSize& size) const override {
    const auto& v = options_;
    return {.forward_flop = 2.0 * size.patches * v.patch_dim() * v.hidden_size,
            .activation_bytes = 2.0 * size.patches * v.patch_dim()};
  }

 private:
  VisionOptions options_;
  TensorRegion region_;
  ParameterPtr weight_;
};

class VisionBlock : public Layer {
 public:
  VisionBlock(ParameterBuilder& builder, const Options& options, int64_t number)
      : VisionBlock(builder, options, number, "visual.blocks." + std::to_string(number)) {}

  void forward(Flow& flow) const override {
    const auto& x_PE = flow.get(field::kVisionHidden);
    if (!x_PE.defined()) return;
    const auto a_PE =
        run_piece("attention", x_PE, flow,
                  [this](const at::Tensor& x, const Flow& side) { return attention(x, side); });
    const auto [h_PE, y_PE] = norm2_.forward_sum(x_PE, a_PE);
    can_make_again("norm", y_PE, h_PE, [this](const at::Tensor& h) { return norm2_.forward(h); });
    flow.set(field::kVisionHidden,
             h_PE + run_piece("mlp", y_PE, flow, [this](const at::Tensor& y, const Flow& side) {
               return mlp(y, side);
             }));
  }

  std::vector<std::string> modules() const override {
    return {"norm", "qkv_rope", "attention", "mlp_act", "mlp"};
  }

  Cost cost(const FlowSize& size) const override {
    const double E = options_.hidden_size, I = options_.intermediate_size, P = size.patches;
    const double seen = full_ ? size.mean_square_frame_patches
                              : static_cast<double>(options_.window_size * options_.window_size) /
                                    static_cast<double>(options_.patch_size * options_.patch_size);
    return {.forward_flop = P * (2 * (4 * E * E + 3 * E * I) + 4 * seen * E),
            .activation_bytes = P * (14 * E + 8 * I + 4 * E)};
  }

 private:
  VisionBlock(ParameterBuilder& builder, const Options& options, int64_t number,
              const std::string& path)
      : Layer(path, "vision"),
        options_(options.vision),
        full_(options.vision.full_attention(number)),
        groups_(builder.groups()),
        region_(builder),
        norm1_(builder, path + ".norm1", "vision", options.vision.hidden_size,
               options.vision.rms_norm_eps),
        norm2_(builder, path + ".norm2", "vision", options.vision.hidden_size,
               options.vision.rms_norm_eps),
        qkv_(builder, path + ".attn.qkv", "vision", options.vision.hidden_size,
             3 * options.vision.hidden_size, true,
             LinearSplit::column(options.vision.head_dim(), /*sections=*/3),
             options.text.initializer_range),
        proj_(builder, path + ".attn.proj", "vision", options.vision.hidden_size,
              options.vision.hidden_size, true, LinearSplit::row(options.vision.head_dim()),
              options.text.initializer_range),
        gate_proj_(builder, path + ".mlp.gate_proj", "vision", options.vision.hidden_size,
                   options.vision.intermediate_size, true, LinearSplit::column(),
                   options.text.initializer_range),
        up_proj_(builder, path + ".mlp.up_proj", "vision", options.vision.hidden_size,
                 options.vision.intermediate_size, true, LinearSplit::column(),
                 options.text.initializer_range),
        down_proj_(builder, path + ".mlp.down_proj", "vision", options.vision.intermediate_size,
                   options.vision.hidden_size, true, LinearSplit::row(),
                   options.text.initializer_range) {
    parameters_ = {norm1_.weight, norm2_.weight};
    for (const Linear* linear : {&qkv_, &proj_, &gate_proj_, &up_proj_, &down_proj_}) {
      parameters_.push_back(linear->weight);
      parameters_.push_back(linear->bias);
    }
  }

  /// All patches of a norm's result, for the split layers.
  at::Tensor enter(const at::Tensor& y_PE) const {
    const auto z_PE = region_.enter(y_PE);
    can_make_again("norm", z_PE, y_PE, [this](const at::Tensor& y) { return region_.enter(y); });
    return z_PE;
  }

  /// q, k and v, of which q and k are turned by their positions.
  std::vector<at::Tensor> project(const at::Tensor& z_PE, const Flow& flow) const {
    // One product gives all q, then all k, then all v.
    const auto qkv_P3HK = qkv_.forward(z_PE, flow.get(field::kVisionDropoutKeys))
                              .unflatten(-1, {3, -1, options_.head_dim()});
    const auto [q_PHK, k_PHK, v_PHK] =
        split_rotary(qkv_P3HK, flow.at(field::kVisionCos), flow.at(field::kVisionSin));
    return {q_PHK, k_PHK, v_PHK};
  }

  at::Tensor attention(const at::Tensor& x_PE, const Flow& flow) const {
    const auto y_PE = norm1_.forward(x_PE);
    can_make_again("norm", y_PE, x_PE, [this](const at::Tensor& x) { return norm1_.forward(x); });
    const auto z_PE = enter(y_PE);
    const auto qkv = project(z_PE, flow);
    can_make_again("qkv_rope", qkv, {z_PE}, flow,
                   [this](const auto& z, const Flow& side) { return project(z[0], side); });
    const auto &q_PHK = qkv[0], &k_PHK = qkv[1], &v_PHK = qkv[2];
    const auto& bounds = flow.at(full_ ? field::kFrameBounds : field::kWindowBounds);
    const auto& patches = flow.get(field::kRankPatches);
    const auto a_PHK = full_ && patches.defined()
                           ? ulysses_attention(q_PHK, k_PHK, v_PHK, bounds, host_values(patches),
                                               *groups_.context, {.causal = false})
                           : varlen_attention(q_PHK, k_PHK, v_PHK, bounds, {.causal = false});
    return proj_.forward(a_PHK.flatten(-2), flow.get(field::kVisionDropoutKeys));
  }

  at::Tensor mlp(const at::Tensor& y_PE, const Flow& flow) const {
    const auto& keys_P = flow.get(field::kVisionDropoutKeys);
    const auto z_PE = enter(y_PE);
    const auto gate_PI = gate_proj_.forward(z_PE, keys_P), up_PI = up_proj_.forward(z_PE, keys_P);
    const auto act_PI = swiglu(gate_PI, up_PI);
    can_make_again("mlp_act", {act_PI}, {gate_PI, up_PI}, flow,
                   [](const auto& in, const Flow&) { return std::vector{swiglu(in[0], in[1])}; });
    return down_proj_.forward(act_PI, keys_P);
  }

  VisionOptions options_;
  bool full_;
  ModelGroups groups_;
  TensorRegion region_;
  RmsNorm norm1_, norm2_;
  Linear qkv_, proj_, gate_proj_, up_proj_, down_proj_;
};

class PatchMerger : public Layer {
 public:
  PatchMerger(ParameterBuilder& builder, const Options& options)
      : Layer("visual.merger", "projector"),
        hidden_(options.vision.hidden_size),
        merged_(options.vision.hidden_size * options.vision.cell_patches()),
        out_(options.vision.out_hidden_size),
        groups_(builder.groups()),
        region_(builder),
        ln_q_(builder, "visual.merger.ln_q", "projector", hidden_, options.vision.rms_norm_eps),
        mlp0_(builder, "visual.merger.mlp.0", "projector", merged_, merged_, true,
              LinearSplit::column(), options.text.initializer_range),
        mlp2_(builder, "visual.merger.mlp.2", "projector", merged_, out_, true,
              LinearSplit::row_to_whole(), options.text.initializer_range) {
    parameters_ = {ln_q_.weight, mlp0_.weight, mlp0_.bias, mlp2_.weight, mlp2_.bias};
  }

  void forward(Flow& flow) const override {
    const auto& x_PE = flow.get(field::kVisionHidden);
    if (!x_PE.defined()) return;
    const auto x_CM = region_.enter(ln_q_.forward(x_PE).reshape({-1, merged_}));
    const auto& patch_keys_P = flow.get(field::kVisionDropoutKeys);
    const auto keys_C = patch_keys_P.defined()
                            ? patch_keys_P.reshape({-1, merged_ / hidden_}).select(1, 0)
                            : at::Tensor();
    const auto y_CD = mlp2_.forward(at::gelu(mlp0_.forward(x_CM, keys_C)), keys_C);
    auto features_CD = y_CD.index_select(0, flow.at(field::kReverseIndex));
    if (flow.has(field::kRouteRows)) {  // to the ranks whose tokens they are
      const RowRoute route{.rows = flow.at(field::kRouteRows),
                           .send = host_values(flow.at(field::kRouteSend)),
                           .receive = host_values(flow.at(field::kRouteReceive))};
      const bool all = groups_.pictures != nullptr &&
                       groups_.pictures->size() == static_cast<int64_t>(route.send.size());
      features_CD = route_rows(features_CD, route, all ? *groups_.pictures : *groups_.context);
    }
    flow.set(field::kFeatures, features_CD);
    for (const char* done : {field::kVisionHidden, field::kVisionCos, field::kVisionSin})
      flow.erase(done);
  }

  Cost cost(const FlowSize& size) const override {
    const double cells = static_cast<double>(size.patches * hidden_) / static_cast<double>(merged_);
    return {.forward_flop = 2.0 * cells * merged_ * (merged_ + out_),
            .activation_bytes = 2.0 * cells * (4.0 * merged_ + out_)};
  }

 private:
  int64_t hidden_, merged_, out_;
  ModelGroups groups_;
  TensorRegion region_;
  RmsNorm ln_q_;
  Linear mlp0_, mlp2_;
};

}  // namespace

void append_vision_layers(LayerList& layers, ParameterBuilder& builder, const Options& options) {
  layers.push_back(std::make_unique<PatchEmbed>(builder, options));
  for (int64_t number = 0; number < options.vision.depth; ++number) {
    layers.push_back(std::make_unique<VisionBlock>(builder, options, number));
  }
  layers.push_back(std::make_unique<PatchMerger>(builder, options));
}

}  // namespace triptych::qwen2_5_vl
