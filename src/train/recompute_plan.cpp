#include "train/recompute_plan.h"

#include <algorithm>
#include <map>
#include <set>

#include "base/glob.h"
#include "parallel/activation_offload.h"
#include "train/loaded_model.h"

namespace triptych {

namespace {

const std::optional<RecomputePartOptions>& part_of(const RecomputeOptions& options,
                                                   const std::string& part) {
  return part == "text" ? options.text : options.vision;
}

int64_t count_on(const LayerCount& layers, int64_t stage) {
  if (const auto* count = std::get_if<int64_t>(&layers)) return *count;
  return std::get<std::vector<int64_t>>(layers).at(static_cast<size_t>(stage));
}

/// policy = "selective" for one block: pieces by their names, whole layers by globs.
LayerRecompute select(const RecomputeOptions& options, const Layer& layer) {
  LayerRecompute how;
  const auto known = layer.modules();
  for (const auto& module : options.modules) {
    if (std::find(known.begin(), known.end(), module) != known.end()) {
      how.memory.modules.push_back(module);
    } else if (glob_match(module, layer.name())) {
      how.again = true;
    }
  }
  if (how.again) how.memory.modules.clear();  // nothing inside is kept anyway
  return how;
}

/// policy = "full" for a block with `before` blocks of its part before it in its piece.
LayerRecompute full(const RecomputeOptions& options, int64_t count, int64_t before) {
  LayerRecompute how{.keep_attention = options.keep_attention};
  if (options.method == RecomputeMethod::kUniform) {
    how.again = true;
    how.with_previous = count < 0 ? before > 0 : before % count > 0;
  } else {
    how.again = count < 0 || before < count;
  }
  return how;
}

/// Rule M16 for the parts that a setting is for: no stage may be told to recompute more blocks of a
/// part than its largest piece has. One number for all stages is "at most so many".
void check_counts(const RecomputeOptions& options, const std::set<std::string>& parts,
                  const std::string& option, const Family& family, const Model& model,
                  const StageCut& cut, Problems& problems) {
  const auto blocks_of = [&](int64_t rank) {
    int64_t most = 0;
    for (int64_t chunk = 0; chunk < cut.chunks; ++chunk) {
      std::map<std::string, int64_t> blocks;
      const auto range = cut.range(rank, chunk);
      for (int64_t i = range.begin; i < range.end; ++i) {
        const auto& layer = *model.layers[static_cast<size_t>(i)];
        if (family.is_block(layer) && parts.contains(layer.part()))
          most = std::max(most, ++blocks[layer.part()]);
      }
    }
    return most;
  };
  const auto check = [&](int64_t count, int64_t rank) {
    problems.check(count <= blocks_of(rank), option, " ", count, " exceeds the ", blocks_of(rank),
                   parts.size() == 1 ? " " + *parts.begin() : "", " layers of stage ", rank,
                   cut.chunks > 1 ? " in one chunk" : "");
  };
  const bool uniform = options.method == RecomputeMethod::kUniform;
  const auto* list = std::get_if<std::vector<int64_t>>(&options.layers);
  if (list == nullptr) {
    const auto count = std::get<int64_t>(options.layers);
    int64_t largest = 0;
    for (int64_t rank = 1; rank < cut.stages; ++rank)
      if (blocks_of(rank) > blocks_of(largest)) largest = rank;
    check(count, largest);
    problems.check(count != 0, option,
                   uniform
                       ? " = 0: groups (method = \"uniform\") have at least 1 layer; -1 = one group"
                       : " = 0 recomputes no layer: policy = \"none\" says so; -1 = all");
    return;
  }
  problems.check(static_cast<int64_t>(list->size()) == cut.stages, option, " has ", list->size(),
                 " numbers, parallel.pipeline = ", cut.stages, " needs one a stage");
  if (static_cast<int64_t>(list->size()) != cut.stages) return;
  for (int64_t rank = 0; rank < cut.stages; ++rank) {
    const int64_t count = (*list)[static_cast<size_t>(rank)];
    check(count, rank);
    problems.check(!uniform || count != 0, option, "[", rank,
                   "] = 0: groups (method = \"uniform\") have at least 1 layer; -1 = one group");
  }
}

void check_modules(const std::vector<std::string>& modules, const std::string& option,
                   const Family& family, const Model& model, Problems& problems) {
  std::set<std::string> names;
  for (const auto& layer : model.layers) {
    for (auto& name : layer->modules()) names.insert(std::move(name));
  }
  std::string list;
  for (const auto& name : names) list += (list.empty() ? "" : ", ") + name;
  for (const auto& module : modules) {
    const bool known =
        names.contains(module) ||
        std::any_of(model.layers.begin(), model.layers.end(), [&](const auto& layer) {
          return family.is_block(*layer) && glob_match(module, layer->name());
        });
    problems.check(known, option, ": no layer is called or has a piece called \"", module,
                   "\"; pieces: ", list, "; layers by globs, e.g. \"",
                   model.layers[model.layers.size() - 2]->name(), "\"");
  }
}

}  // namespace

RecomputePlan::RecomputePlan(std::vector<LayerRecompute> layers,
                             std::shared_ptr<ActivationOffload> offload)
    : layers_(std::move(layers)), offload_(std::move(offload)) {
  if (std::all_of(layers_.begin(), layers_.end(), [](const auto& l) { return l.is_plain(); }))
    layers_.clear();
}

size_t RecomputePlan::end_of_group(size_t layer, size_t end) const {
  size_t next = layer + 1;
  while (next < end && layers_[next].with_previous) ++next;
  return next;
}

std::vector<LayerRange> RecomputePlan::groups() const {
  std::vector<LayerRange> result;
  for (size_t i = 0, next = 0; i < layers_.size(); i = next) {
    next = end_of_group(i, layers_.size());
    if (next > i + 1) result.push_back({static_cast<int64_t>(i), static_cast<int64_t>(next)});
  }
  return result;
}

RecomputePlan RecomputePlan::full(const Family& family, const Model& model, int64_t count) {
  return make_recompute_plan({.policy = RecomputePolicy::kFull, .layers = count}, family, model,
                             StageCut::whole(static_cast<int64_t>(model.layers.size())), at::kCPU);
}

void check_recompute(const RecomputeOptions& options, const Family& family, const Model& model,
                     const StageCut& cut, Problems& problems) {
  const std::string parts[] = {"vision", "text"};
  std::set<std::string> common;  // of which [recompute] counts the layers
  for (const auto& part : parts) {
    const auto& own = part_of(options, part);
    if (options.of_part(own).policy == RecomputePolicy::kFull && !(own && own->layers))
      common.insert(part);
  }
  for (const auto& part : parts) {
    const auto& own = part_of(options, part);
    const auto of_part = options.of_part(own);
    const auto name = [&](bool of_its_own, const char* key) {
      return (of_its_own ? "recompute." + part : "recompute") + key;
    };
    problems.check(!of_part.keep_attention || of_part.policy == RecomputePolicy::kFull,
                   name(own && own->keep_attention, ".keep_attention"),
                   " = true needs policy = \"full\": otherwise attention's outputs are kept as "
                   "they are");
    if (of_part.policy == RecomputePolicy::kFull) {
      const bool counts = own && own->layers;
      check_counts(of_part, counts ? std::set{part} : common, name(counts, ".layers"), family,
                   model, cut, problems);
    } else if (of_part.policy == RecomputePolicy::kSelective) {
      check_modules(of_part.modules, name(own && own->modules, ".modules"), family, model,
                    problems);
    }
  }
}

RecomputePlan make_recompute_plan(const RecomputeOptions& options, const Family& family,
                                  const Model& model, const StageCut& cut, at::Device device) {
  std::vector<LayerRecompute> layers;
  bool offload = false;
  std::map<std::pair<int64_t, std::string>, int64_t> seen;  // blocks, by virtual stage and part
  for (size_t i = 0; i < model.layers.size(); ++i) {
    const auto& layer = *model.layers[i];
    auto& how = layers.emplace_back();
    if (!family.is_block(layer)) continue;
    const int64_t stage = cut.stage_of(static_cast<int64_t>(i));
    const auto of_part = options.of_part(part_of(options, layer.part()));
    const int64_t before = seen[{stage, layer.part()}]++;
    if (of_part.policy == RecomputePolicy::kSelective) how = select(of_part, layer);
    if (of_part.policy == RecomputePolicy::kFull)
      how = full(of_part, count_on(of_part.layers, stage % cut.stages), before);
    how.memory.offload = of_part.offload;
    offload = offload || of_part.offload;
  }
  return {std::move(layers), offload
                                 ? std::make_shared<ActivationOffload>(OffloadSettings{
                                       .device = device, .least_bytes = options.offload_min_bytes})
                                 : nullptr};
}

}  // namespace triptych
