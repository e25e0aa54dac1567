#include "plan/run_plan.h"

#include <algorithm>
#include <map>

#include "base/format.h"
#include "train/loaded_model.h"
#include "train/recompute_plan.h"
#include "train/run_layers.h"
#include "train/run_layout.h"
#include "train/run_setup.h"
#include "train/stage.h"

namespace triptych {

namespace {

/// Ranks with equal keys run the same program on the same sizes. Above 8 processes also those with
/// other shares of the pictures of all data ranks, or other heads, are taken to be alike.
std::array<int64_t, kNumMeshDims> program_key(const ParallelOptions& options, const Mesh& mesh,
                                              int64_t rank) {
  auto place = mesh.coordinates(rank);
  const bool many = mesh.world_size() > 8;
  if (many) place[MeshDim::kTensor] = 0;
  if (many || options.balance_vision != BalanceVision::kData) place[MeshDim::kData] = 0;
  return place.at;
}

}  // namespace

RunOptions without_weights(RunOptions options) {
  auto& model = options.model;
  model.weights = InitialWeights::kRandom;
  if (!model.preset.empty() && !std::filesystem::is_directory(model.path)) model.path.clear();
  return options;
}

namespace {

/// Everything but the ranks.
struct Prepared {
  RunOptions options;
  RunPlan plan;
  MicroBatch batch;
  std::vector<std::string> stages;  ///< what each pipeline stage holds: equal texts, equal programs
};

/// The layers of every pipeline stage, chunk by chunk, as what makes a difference to its program.
std::vector<std::string> describe_layers(const RunOptions& options, const LoadedModel& whole,
                                         const PipelineShape& shape, const FlowSize& size) {
  Problems problems;
  const auto cut = cut_model(*whole.family, whole.model, options, shape, problems);
  problems.throw_if_any();
  const auto recompute =
      make_recompute_plan(options.recompute, *whole.family, whole.model, cut, at::kMeta);
  std::vector<std::string> stages(static_cast<size_t>(shape.stages));
  bool gradients_pass = false;
  for (size_t i = 0; i < whole.model.layers.size(); ++i) {
    const auto& layer = *whole.model.layers[i];
    const auto& parameters = layer.parameters();
    const bool trained =
        std::any_of(parameters.begin(), parameters.end(), [](const auto& p) { return p->trained; });
    const int64_t stage = cut.stage_of(static_cast<int64_t>(i));
    auto& text = stages[static_cast<size_t>(stage % shape.stages)];
    text += fmt::format("{} {}{} {:.6g} flop{}{}", stage / shape.stages, layer.part(),
                        whole.family->is_block(layer) ? " block" : " " + layer.name(),
                        layer.cost(size).forward_flop, trained ? " trained" : "",
                        gradients_pass ? " passes" : "");
    if (!recompute.empty()) {
      const auto& how = recompute.of(i);
      text += fmt::format(" {:d}{:d}{:d}{:d}", how.again, how.with_previous, how.keep_attention,
                          how.memory.offload);
      for (const auto& module : how.memory.modules) text += " " + module;
    }
    text += "; ";
    gradients_pass = gradients_pass || trained;
  }
  return stages;
}

Prepared prepare(const RunOptions& given, int64_t processes, int64_t ranks_per_host) {
  Prepared run{.options = without_weights(given)};
  auto& plan = run.plan;
  plan.processes = processes;
  auto layout = check_layout(run.options, processes, ranks_per_host);
  plan.mesh = layout.mesh;
  plan.advice = std::move(layout.advice);
  const Mesh mesh(processes, plan.mesh);
  auto request = model_request(run.options);
  request.meta_only = true;
  const auto whole = load_model(request);
  run.batch = typical_micro_batch(run.options, *whole.family);
  const auto size = whole.family->flow_size(run.batch);
  plan.model = whole.family->name();
  plan.parameters = whole.num_parameters();
  plan.trained = whole.num_trained();
  plan.pipeline = pipeline_shape(run.options, mesh.size(MeshDim::kData));
  plan.micro_batches = plan.pipeline.micro_batches;
  plan.micro_batch_tokens = size.tokens;
  const auto all = static_cast<double>(plan.micro_batches * mesh.size(MeshDim::kData));
  plan.step_flop = all * training_flop(whole.model, size);
  plan.step_tokens = all * static_cast<double>(size.tokens);
  for (const auto& row : run.batch.rows) {
    for (const auto& sample : row.samples)
      plan.step_pictures += all * static_cast<double>(sample.media.size());
  }
  run.stages = describe_layers(run.options, whole, plan.pipeline, size);
  return run;
}

RankPlan plan_one(const Prepared& run, int64_t rank, int64_t ranks_per_host) {
  return plan_rank(run.options, run.plan.mesh, run.plan.processes, rank, run.batch,
                   run.plan.micro_batches, ranks_per_host);
}

}  // namespace

RunPlan plan_run(const RunOptions& options, int64_t processes, std::optional<int64_t> rank,
                 int64_t ranks_per_host) {
  auto run = prepare(options, processes, ranks_per_host);
  require<UsageError>(!rank || *rank < processes, "--rank ", rank.value_or(0), " is none of the ",
                      processes, " ranks 0 to ", processes - 1);
  const Mesh mesh(processes, run.plan.mesh);
  std::map<std::array<int64_t, kNumMeshDims>, RankPlan> done;
  for (int64_t r = rank.value_or(0); r < (rank ? *rank + 1 : processes); ++r) {
    const auto key = program_key(run.options.parallel, mesh, r);
    auto it = done.find(key);
    if (it == done.end()) it = done.emplace(key, plan_one(run, r, ranks_per_host)).first;
    auto own = it->second;
    own.rank = r;
    own.place = mesh.coordinates(r);
    run.plan.ranks.push_back(std::move(own));
  }
  return std::move(run.plan);
}

RunPlan plan_stages(const RunOptions& options, int64_t processes, int64_t ranks_per_host) {
  auto run = prepare(options, processes, ranks_per_host);
  const Mesh mesh(processes, run.plan.mesh);
  const int64_t stages = mesh.size(MeshDim::kPipeline);
  for (int64_t stage = 0; stage < stages; ++stage) {
    MeshCoordinates place;
    place[MeshDim::kPipeline] = stage;
    // The first stage receives nothing and the last sends nothing: they are like no other.
    int64_t same = stage;
    for (int64_t s = stage - 1; s > 0 && stage + 1 < stages; --s) {
      if (run.stages[static_cast<size_t>(s)] == run.stages[static_cast<size_t>(stage)]) same = s;
    }
    auto rank = same < stage ? run.plan.ranks[static_cast<size_t>(same)]
                             : plan_one(run, mesh.rank(place), ranks_per_host);
    rank.rank = mesh.rank(place);
    rank.place = place;
    run.plan.ranks.push_back(std::move(rank));
  }
  return std::move(run.plan);
}

}  // namespace triptych
