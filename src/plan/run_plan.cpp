#include "plan/run_plan.h"

#include <algorithm>
#include <map>

#include "base/format.h"
#include "train/loaded_model.h"
#include "train/run_layers.h"
#include "train/run_layout.h"
#include "train/run_setup.h"
#include "train/stage.h"

namespace triptych {

namespace {

/// Ranks with equal keys run the same program on the same sizes.
std::array<int64_t, kNumMeshDims> program_key(const Mesh& mesh, int64_t rank) {
  auto place = mesh.coordinates(rank);
  if (mesh.world_size() > 8) place[MeshDim::kTensor] = 0;
  place[MeshDim::kData] = 0;
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
};

Prepared prepare(const RunOptions& given, int64_t processes) {
  Prepared run{.options = without_weights(given)};
  auto& plan = run.plan;
  plan.processes = processes;
  plan.mesh = check_layout(run.options, processes).mesh;
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
  return run;
}

RankPlan plan_one(const Prepared& run, int64_t rank, int64_t ranks_per_host) {
  return plan_rank(run.options, run.plan.mesh, run.plan.processes, rank, run.batch,
                   run.plan.micro_batches, ranks_per_host);
}

}  // namespace

RunPlan plan_run(const RunOptions& options, int64_t processes, std::optional<int64_t> rank,
                 int64_t ranks_per_host) {
  auto run = prepare(options, processes);
  require<UsageError>(!rank || *rank < processes, "--rank ", rank.value_or(0), " is none of the ",
                      processes, " ranks 0 to ", processes - 1);
  const Mesh mesh(processes, run.plan.mesh);
  std::map<std::array<int64_t, kNumMeshDims>, RankPlan> done;
  for (int64_t r = rank.value_or(0); r < (rank ? *rank + 1 : processes); ++r) {
    const auto key = program_key(mesh, r);
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
  auto run = prepare(options, processes);
  const Mesh mesh(processes, run.plan.mesh);
  const int64_t stages = mesh.size(MeshDim::kPipeline);
  for (int64_t stage = 0; stage < stages; ++stage) {
    MeshCoordinates place;
    place[MeshDim::kPipeline] = stage;
    const bool inner = stage > 1 && stage + 1 < stages;
    auto rank = inner ? run.plan.ranks[1] : plan_one(run, mesh.rank(place), ranks_per_host);
    rank.rank = mesh.rank(place);
    rank.place = place;
    run.plan.ranks.push_back(std::move(rank));
  }
  return std::move(run.plan);
}

}  // namespace triptych
