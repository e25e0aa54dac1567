#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "nn/linear.h"
#include "parallel/layer.h"
#include "parallel/parameter.h"

namespace triptych {

class ParameterShards;

/// A model as everything outside its family sees it: layers over a flow, parameters by name, and
/// the linear layers that adapters may go beside.
struct Model {
  LayerList layers;
  ParameterList
      parameters;  ///< in the order of the layers; every parameter once, adapters included
  std::vector<Linear*> linears;
  /// Where ranks share the parameters out (ZeRO-3): gathers those of the layers that run. Null:
  /// each parameter is whole where it is.
  std::shared_ptr<ParameterShards> shards;
  /// Where layers exchange activations: products that are computed meanwhile. Null: none wait.
  std::shared_ptr<WeightGradients> waiting;

  /// @throws Error when there is none of that name.
  Parameter& parameter(std::string_view name) const;
};

/// How adapters are made.
struct LoraSettings {
  int64_t rank = 16;
  double scale = 1;  ///< alpha / rank, or alpha / sqrt(rank)
  double dropout = 0;
};

/// Puts a fresh adapter beside a linear layer (A uniform in +-1/sqrt(in), B zero, fp32, on meta)
/// and adds its parameters to the model right behind the layer's own. The adapter's names are
/// `<linear path>.lora_A.weight` and `.lora_B.weight`.
void add_lora(Model& model, Linear& linear, const LoraSettings& settings);

/// Gives every parameter that is still on the meta device storage and the reference's random
/// values: each element a function of (seed, name, element index), so that any shard draws only its
/// part.
/// @param shards  that keep the values of each as it is made; may be null
void initialise(const ParameterList& parameters, uint64_t seed, at::Device device,
                ParameterShards* shards = nullptr);

}  // namespace triptych
