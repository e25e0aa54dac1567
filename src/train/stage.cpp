#include "train/stage.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "base/format.h"
#include "base/log.h"
#include "parallel/parameter_shards.h"
#include "parallel/shard_groups.h"
#include "train/recompute_plan.h"
#include "train/run_layers.h"
#include "train/run_setup.h"

namespace triptych {

PipelineShape pipeline_shape(const RunOptions& options, int64_t data_ranks) {
  const auto& p = options.parallel;
  const int64_t rows = options.train.micro_batch * data_ranks;
  return {.stages = p.pipeline,
          .chunks = p.virtual_chunks,
          .micro_batches = std::max<int64_t>(1, options.train.global_batch / rows),
          .group = p.micro_batch_group,
          .order = p.schedule};
}

namespace {

/// Pipeline ranks whose layers use each parameter, by the parameters' order.
std::vector<std::set<int64_t>> users_of(const Model& model, const StageCut& cut) {
  std::map<const Parameter*, std::set<int64_t>> users;
  for (size_t i = 0; i < model.layers.size(); ++i) {
    for (const auto& p : model.layers[i]->parameters())
      users[p.get()].insert(cut.stage_of(static_cast<int64_t>(i)) % cut.stages);
  }
  std::vector<std::set<int64_t>> result;
  for (const auto& p : model.parameters) {
    result.push_back(users[p.get()]);
    require(!result.back().empty(), "'", p->name, "' is a parameter of no layer; this is a bug");
  }
  return result;
}

}  // namespace

StageCut cut_model(const Family& family, const Model& model, const RunOptions& options,
                   const PipelineShape& shape, Problems& problems) {
  validate(shape, problems);
  const auto flops = training_flops(model, family.typical_size(options.data.max_length));
  std::vector<CutLayer> layers;
  for (size_t i = 0; i < model.layers.size(); ++i) {
    const auto& layer = *model.layers[i];
    layers.push_back({layer.part(), family.is_block(layer), flops[i]});
  }
  const auto& p = options.parallel;
  const std::vector<PartSplit> splits{
      {"vision", "parallel.vision_layers", p.vision_layers},
      {"text", "parallel.text_layers", p.text_layers},
      {"transformer", "parallel.transformer_layers", p.transformer_layers}};
  const auto before = problems.messages().size();
  auto cut = cut_layers(layers, shape, splits, problems);
  if (problems.messages().size() > before) return cut;
  check_recompute(options.recompute, family, model, cut, problems);
  return cut;
}

void place_on_stage(LoadedModel& loaded, const StageCut& cut, int64_t rank) {
  loaded.cut = cut;
  const auto users = users_of(loaded.model, cut);
  for (size_t i = 0; i < users.size(); ++i) {
    auto& p = *loaded.model.parameters[i];
    p.on_stage = users[i].contains(rank);
    p.owner = *users[i].begin();
  }
}

std::vector<OptimizerGroups::Shared> shared_parameters(ProcessContext& process,
                                                       const LoadedModel& loaded) {
  std::vector<OptimizerGroups::Shared> shared;
  const auto users = users_of(loaded.model, loaded.cut);
  const int64_t own = process.coordinates()[MeshDim::kPipeline];
  for (size_t i = 0; i < users.size(); ++i) {
    const auto& p = *loaded.model.parameters[i];
    if (!p.trained || users[i].size() < 2 || !users[i].contains(own)) continue;
    std::vector<int64_t> ranks;
    for (const auto stage : users[i]) {
      auto place = process.coordinates();
      place[MeshDim::kPipeline] = stage;
      ranks.push_back(process.mesh().rank(place));
    }
    std::sort(ranks.begin(), ranks.end());
    shared.push_back({p.name, &process.group(ranks, "shared parameters")});
  }
  return shared;
}

std::vector<ParameterList> chunk_parameters(const LoadedModel& loaded, int64_t rank) {
  std::vector<ParameterList> chunks;
  for (int64_t chunk = 0; chunk < loaded.cut.chunks; ++chunk) {
    auto& parameters = chunks.emplace_back();
    const auto range = loaded.cut.range(rank, chunk);
    for (int64_t i = range.begin; i < range.end; ++i) {
      const auto& of_layer = loaded.model.layers[static_cast<size_t>(i)]->parameters();
      parameters.insert(parameters.end(), of_layer.begin(), of_layer.end());
    }
  }
  return chunks;
}

namespace {

/// ZeRO-3: shares the parameters of this rank's layers out. They are on meta still.
void share_parameters(ProcessContext& process, const RunOptions& options, LoadedModel& loaded,
                      at::Device device) {
  const auto& p = options.parallel;
  const auto groups = shard_groups(process, p.zero, p.zero_group);
  if (p.zero < 3 || groups.shards == nullptr) return;
  const auto* reshard = std::get_if<bool>(&p.zero_reshard);
  ShardedParameterSettings settings{
      .group = groups.shards,
      .prefetch = p.overlap ? p.zero_prefetch : 0,
      .reshard = reshard != nullptr ? *reshard : loaded.cut.stages == 1,
      .backward_follows = loaded.cut.stages == 1,
      .device = device};
  const auto users = users_of(loaded.model, loaded.cut);
  for (size_t i = 0; i < users.size(); ++i) {
    if (users[i].size() > 1) settings.apart.insert(loaded.model.parameters[i]->name);
  }
  loaded.model.shards = std::make_shared<ParameterShards>(loaded.model.layers, settings);
  if (!settings.reshard || loaded.cut.stages == 1 || process.rank() != 0) return;
  double bytes = 0;
  for (const auto& parameter : loaded.model.parameters) {
    if (parameter->on_stage) bytes += static_cast<double>(parameter->value.nbytes());
  }
  const auto batches = pipeline_shape(options, process.mesh().size(MeshDim::kData)).micro_batches;
  log_warning(
      "parallel.zero_reshard = true with a pipeline: each of {} micro-batches gathers the {} MB of "
      "the first stage's parameters twice; false gathers them once a step",
      batches, std::ceil(bytes / 1e6));
}

}  // namespace

LoadedModel load_part(ProcessContext& process, const RunOptions& options, at::Device device) {
  return load_part(process, options, device, read_family(model_request(options)));
}

LoadedModel load_part(ProcessContext& process, const RunOptions& options, at::Device device,
                      std::unique_ptr<Family> family) {
  auto request = model_request(options);
  request.device = device;
  if (device.is_meta()) request.meta_only = request.random_weights = true;
  request.groups = model_groups(process, options.parallel);
  request.place = [&](LoadedModel& loaded) {
    Problems problems;
    const auto shape = pipeline_shape(options, process.mesh().size(MeshDim::kData));
    const auto cut = cut_model(*loaded.family, loaded.model, options, shape, problems);
    problems.throw_if_any();
    loaded.pipeline = &process.group(kPipelineGroup);
    place_on_stage(loaded, cut, process.coordinates()[MeshDim::kPipeline]);
    share_parameters(process, options, loaded, device);
    loaded.model.waiting = weight_gradients_beside(loaded.groups, options.parallel);
    for (const auto& p : loaded.model.parameters) {
      if (p->on_stage) p->weight_gradients = loaded.model.waiting;
    }
  };
  return load_model(request, std::move(family));
}

namespace {

/// Parameters of a single layer: each use of a layer is one node of the graph, run once in
/// backward, also where the layer is computed again.
std::set<std::string> used_by_one_layer(const Model& model) {
  std::map<std::string, int64_t> uses;
  for (const auto& layer : model.layers) {
    for (const auto& p : layer->parameters()) ++uses[p->name];
  }
  std::set<std::string> names;
  for (const auto& [name, count] : uses) {
    if (count == 1) names.insert(name);
  }
  return names;
}

}  // namespace

OptimizerGroups optimizer_groups(ProcessContext& process, const RunOptions& options,
                                 const LoadedModel& loaded) {
  auto groups = optimizer_groups(process, options.parallel.zero, options.parallel.zero_group);
  groups.shared = shared_parameters(process, loaded);
  groups.chunks = chunk_parameters(loaded, process.coordinates()[MeshDim::kPipeline]);
  groups.waiting = loaded.model.waiting;
  groups.come_once = used_by_one_layer(loaded.model);
  groups.parameters = loaded.model.shards.get();
  return groups;
}

std::unique_ptr<Stage> Stage::make(ProcessContext& process, const RunOptions& options,
                                   const LoadedModel& loaded, at::Device device,
                                   Forecast forecast) {
  const auto shape = pipeline_shape(options, process.mesh().size(MeshDim::kData));
  if (shape.stages == 1) return nullptr;
  const auto groups = pipeline_groups(process, shape.chunks);
  PipelineSettings settings{.shape = shape,
                            .rank = process.coordinates()[MeshDim::kPipeline],
                            .fields = loaded.family->travelling_fields(),
                            .device = device,
                            .forecast = std::move(forecast)};
  return std::unique_ptr<Stage>(
      new Stage(std::move(settings), groups, process.group(kDataGroup | kPipelineGroup), loaded));
}

Stage::Stage(PipelineSettings settings, const PipelineGroups& groups, Group& losses,
             const LoadedModel& loaded)
    : pipeline_(std::move(settings), groups), losses_(losses) {
  const auto& cut = loaded.cut;
  for (int64_t chunk = 0; chunk < cut.chunks; ++chunk) {
    ranges_.push_back(cut.range(pipeline_.settings().rank, chunk));
    for (int64_t i = ranges_.back().begin; i < ranges_.back().end; ++i) {
      const auto& layer = *loaded.model.layers[static_cast<size_t>(i)];
      reads_pixels_ = reads_pixels_ || i == 0;
      reads_vision_ = reads_vision_ || layer.part() != "text";
    }
  }
  for (const auto& p : loaded.model.parameters) {
    if (p->on_stage && pipeline_.weight_gradients())
      p->weight_gradients = pipeline_.weight_gradients();
  }
}

std::string describe_stages(const LoadedModel& loaded, const PipelineShape& shape) {
  std::string text;
  for (int64_t stage = 0; stage < shape.virtual_stages(); ++stage) {
    const auto range = loaded.cut.range(stage % shape.stages, stage / shape.stages);
    text += stage == 0 ? "" : "; ";
    text += shape.chunks == 1
                ? fmt::format("stage {}: ", stage)
                : fmt::format("stage {} chunk {}: ", stage % shape.stages, stage / shape.stages);
    if (range.empty()) {
      text += "none";
      continue;
    }
    const auto& first = loaded.model.layers[static_cast<size_t>(range.begin)]->name();
    const auto& last = loaded.model.layers[static_cast<size_t>(range.end - 1)]->name();
    text += range.end - range.begin == 1 ? first : fmt::format("{} to {}", first, last);
  }
  return fmt::format(
      "pipeline {}: {} micro-batches a step, bubble {:.1f} % of the work at best; {}",
      option_names(PipelineOrder())[static_cast<size_t>(shape.order)], shape.micro_batches,
      100 * bubble_formula(shape, SlotTimes()), text);
}

}  // namespace triptych
