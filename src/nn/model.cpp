#include "nn/model.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/hash.h"
#include "base/random.h"
#include "parallel/parameter_shards.h"

namespace triptych {

Parameter& Model::parameter(std::string_view name) const {
  const auto it = std::find_if(parameters.begin(), parameters.end(),
                               [&](const auto& p) { return p->name == name; });
  require(it != parameters.end(), "the model has no parameter '", name, "'");
  return **it;
}

void add_lora(Model& model, Linear& linear, const LoraSettings& settings) {
  const auto placement = placement_of(linear.split(), linear.groups());
  const auto make = [&](const char* which, std::vector<int64_t> shape, Parameter::Init init,
                        const Placement& where) {
    return make_parameter({.name = linear.path() + which,
                           .part = linear.part(),
                           .shape = std::move(shape),
                           .init = init,
                           .placement = where},
                          linear.groups());
  };
  require(!linear.lora, "'", linear.path(), "' has an adapter already");
  const double bound = 1 / std::sqrt(static_cast<double>(linear.in()));
  Lora lora{.a_RI = make(".lora_A.weight", {settings.rank, linear.in()},
                         {Parameter::Init::Kind::kUniform, bound}, placement.lora_a),
            .b_OR = make(".lora_B.weight", {linear.out(), settings.rank},
                         {Parameter::Init::Kind::kZero, 0}, placement.lora_b),
            .scale = settings.scale,
            .dropout = settings.dropout};
  lora.site = xxh3_64(linear.path());
  const auto own = std::find(model.parameters.begin(), model.parameters.end(),
                             linear.bias ? linear.bias : linear.weight);
  require(own != model.parameters.end(), "'", linear.path(), "' is not a layer of this model");
  model.parameters.insert(own + 1, {lora.a_RI, lora.b_OR});
  const auto layer = std::find_if(model.layers.begin(), model.layers.end(), [&](const auto& l) {
    return std::find(l->parameters().begin(), l->parameters().end(), linear.weight) !=
           l->parameters().end();
  });
  require(layer != model.layers.end(), "'", linear.path(), "' stands in no layer");
  (*layer)->add_parameter(lora.a_RI);
  (*layer)->add_parameter(lora.b_OR);
  linear.lora = std::move(lora);
}

namespace {

/// Draws `values.numel()` elements of the parameter's random sequence from `first` on and scales
/// them.
void fill_random(const at::Tensor& values, int64_t first, const Parameter& parameter,
                 uint64_t seed) {
  const RandomKey key{seed, RandomStream::kInit};
  const uint64_t name = xxh3_64(parameter.name);
  const bool normally = parameter.init.kind == Parameter::Init::Kind::kNormal;
  const auto scale = static_cast<float>(parameter.init.scale);
  auto* out = values.mutable_data_ptr<float>();
  at::parallel_for(0, values.numel(), 1 << 15, [&](int64_t begin, int64_t end) {
    const std::span<float> part(out + begin, end - begin);
    if (normally) {
      fill_normal(part, key, static_cast<uint64_t>(first + begin), name);
      for (auto& value : part) value *= scale;
    } else {
      fill_uniform(part, key, static_cast<uint64_t>(first + begin), name);
      for (auto& value : part) value = scale * (2 * value - 1);
    }
  });
}

/// What this rank holds of the parameter's random values: each run of neighbours by itself.
at::Tensor random_part(const Parameter& parameter, uint64_t seed) {
  auto values = at::empty(parameter.value.sizes(), at::kFloat);
  if (parameter.held.empty()) {
    fill_random(values, 0, parameter, seed);
    return values;
  }
  const auto dim = static_cast<size_t>(parameter.placement.split->dim);
  int64_t outer = 1, inner = 1;
  for (size_t d = 0; d < parameter.full_shape.size(); ++d) {
    if (d < dim) outer *= parameter.full_shape[d];
    if (d > dim) inner *= parameter.full_shape[d];
  }
  const int64_t row = parameter.full_shape[dim] * inner;
  const auto flat = values.view(-1);
  for (int64_t o = 0, at = 0; o < outer; ++o) {
    for (const auto& range : parameter.held) {
      const int64_t length = range.length * inner;
      fill_random(flat.narrow(0, at, length), o * row + range.start * inner, parameter, seed);
      at += length;
    }
  }
  return values;
}

}  // namespace

void initialise(const ParameterList& parameters, uint64_t seed, at::Device device,
                ParameterShards* shards) {
  for (const auto& parameter : parameters) {
    if (!parameter->on_stage || !parameter->value.is_meta()) continue;
    const auto dtype = parameter->value.scalar_type();
    at::Tensor values;
    switch (parameter->init.kind) {
      case Parameter::Init::Kind::kZero:
        values = at::zeros(parameter->value.sizes(), dtype);
        break;
      case Parameter::Init::Kind::kOne:
        values = at::zeros(parameter->value.sizes(), dtype).fill_(1);
        break;
      case Parameter::Init::Kind::kNormal:
      case Parameter::Init::Kind::kUniform:
        values = random_part(*parameter, seed);
        break;
    }
    values = values.to(at::TensorOptions().dtype(dtype).device(device));
    if (shards != nullptr) {
      shards->store(*parameter, values);
    } else {
      parameter->value = values.set_requires_grad(parameter->trained);
    }
  }
}

}  // namespace triptych
