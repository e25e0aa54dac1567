#include "plan/run_plan.h"

#include <algorithm>
#include <cmath>
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
/// @param own_rows  data ranks have unlike rows
std::array<int64_t, kNumMeshDims> program_key(const ParallelOptions& options, const Mesh& mesh,
                                              int64_t rank, bool own_rows) {
  auto place = mesh.coordinates(rank);
  const bool many = mesh.world_size() > 8;
  if (many) place[MeshDim::kTensor] = 0;
  if (many || (!own_rows && options.balance_vision != BalanceVision::kData))
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
  PlannedRows rows;
  std::vector<MicroBatch> fullest;
  int64_t dearest = 0;              ///< the data rank with most work
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

/// Sums of the first step over all data ranks.
void add_up_step(RunPlan& plan, const LoadedModel& whole, const PlannedRows& rows,
                 int64_t data_ranks) {
  const double times = rows.typical() ? static_cast<double>(data_ranks) : 1;  // all are alike
  for (int64_t rank = 0; rank < (rows.typical() ? 1 : data_ranks); ++rank) {
    for (const auto& batch : rows.first_step(rank)) {
      const auto size = whole.family->flow_size(batch);
      plan.step_flop += times * training_flop(whole.model, size);
      plan.step_tokens += times * static_cast<double>(size.tokens);
      for (const auto& row : batch.rows) {
        for (const auto& sample : row.samples)
          plan.step_pictures += times * static_cast<double>(sample.media.size());
      }
    }
  }
  plan.micro_batch_tokens =
      std::llround(plan.step_tokens / static_cast<double>(plan.micro_batches * data_ranks));
}

Prepared prepare(const RunOptions& given, int64_t processes, int64_t ranks_per_host,
                 const PlanData* data) {
  const auto options = without_weights(given);
  auto layout = check_layout(options, processes, ranks_per_host);
  const Mesh mesh(processes, layout.mesh);
  const int64_t data_ranks = mesh.size(MeshDim::kData);
  auto request = model_request(options);
  request.meta_only = true;
  const auto whole = load_model(request);
  Prepared run{.options = options,
               .plan = {},
               .rows = PlannedRows(options, *whole.family, data_ranks, data),
               .fullest = {},
               .stages = {}};
  run.fullest = run.rows.fullest(*whole.family);
  run.dearest = run.rows.dearest(*whole.family, whole.model);
  auto& plan = run.plan;
  plan.processes = processes;
  plan.mesh = layout.mesh;
  plan.advice = std::move(layout.advice);
  if (data != nullptr) plan.data = data->summary;
  plan.model = whole.family->name();
  plan.parameters = whole.num_parameters();
  plan.trained = whole.num_trained();
  plan.pipeline = pipeline_shape(options, data_ranks);
  plan.micro_batches = plan.pipeline.micro_batches;
  add_up_step(plan, whole, run.rows, data_ranks);
  run.stages =
      describe_layers(options, whole, plan.pipeline, whole.family->flow_size(run.fullest.front()));
  return run;
}

/// A rank's exchanges and work.
/// @param data_rank  whose rows it has
/// @param most_run   of unlike micro-batches
RankPlan plan_work(const Prepared& run, int64_t rank, int64_t data_rank, int64_t ranks_per_host,
                   int64_t most_run) {
  const auto& plan = run.plan;
  if (run.rows.typical())
    return plan_rank(run.options, plan.mesh, plan.processes, rank, run.fullest.front(),
                     plan.micro_batches, ranks_per_host);
  return plan_step(run.options, plan.mesh, plan.processes, rank, run.rows.first_step(data_rank),
                   ranks_per_host, most_run);
}

/// The most that one of the fullest micro-batches takes on a rank.
MemoryUse plan_fullest(const Prepared& run, int64_t rank, int64_t ranks_per_host) {
  MemoryUse most;
  for (const auto& batch : run.fullest) {
    const auto memory = plan_memory(run.options, run.plan.mesh, run.plan.processes, rank, batch,
                                    run.plan.micro_batches, ranks_per_host);
    if (memory.total() > most.total()) most = memory;
  }
  return most;
}

}  // namespace

RunPlan plan_run(const RunOptions& options, int64_t processes, std::optional<int64_t> rank,
                 int64_t ranks_per_host, const PlanData* data) {
  auto run = prepare(options, processes, ranks_per_host, data);
  require<UsageError>(!rank || *rank < processes, "--rank ", rank.value_or(0), " is none of the ",
                      processes, " ranks 0 to ", processes - 1);
  const Mesh mesh(processes, run.plan.mesh);
  constexpr int64_t kMostRun = 64;  // of unlike micro-batches, twice over where there are more
  const bool typical = run.rows.typical(), many = processes > 8;
  std::map<std::array<int64_t, kNumMeshDims>, RankPlan> done;
  std::map<std::array<int64_t, kNumMeshDims>, MemoryUse> memory;
  for (int64_t r = rank.value_or(0); r < (rank ? *rank + 1 : processes); ++r) {
    const auto& parallel = run.options.parallel;
    const auto place = mesh.coordinates(r);
    const auto key = program_key(parallel, mesh, r, !typical);
    auto it = done.find(key);
    if (it == done.end()) {
      const int64_t data_rank = many ? run.dearest : place[MeshDim::kData];
      it = done.emplace(key, plan_work(run, r, data_rank, ranks_per_host, kMostRun)).first;
    }
    auto own = it->second;
    own.rank = r;
    own.place = place;
    if (!typical) {
      const auto of_memory = program_key(parallel, mesh, r, false);
      if (!memory.contains(of_memory)) memory[of_memory] = plan_fullest(run, r, ranks_per_host);
      own.memory = memory[of_memory];
    }
    run.plan.ranks.push_back(std::move(own));
  }
  return std::move(run.plan);
}

RunPlan plan_stages(const RunOptions& options, int64_t processes, int64_t ranks_per_host,
                    const PlanData* data) {
  constexpr int64_t kMostRun = 4;
  auto run = prepare(options, processes, ranks_per_host, data);
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
    const auto number = mesh.rank(place);
    auto rank = same < stage ? run.plan.ranks[static_cast<size_t>(same)]
                             : plan_work(run, number, run.dearest, ranks_per_host, kMostRun);
    if (same == stage && !run.rows.typical())
      rank.memory = plan_fullest(run, number, ranks_per_host);
    rank.rank = number;
    rank.place = place;
    run.plan.ranks.push_back(std::move(rank));
  }
  return std::move(run.plan);
}

}  // namespace triptych
