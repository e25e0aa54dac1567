#include "plan/rank_plan.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "kernels/memory_scope.h"
#include "parallel/parameter_shards.h"
#include "train/run_layers.h"
#include "train/run_setup.h"
#include "train/stage.h"
#include "train/train_step.h"

namespace triptych {

namespace {

ProcessOptions planned_process(const RunOptions& options) {
  auto process = process_options(options);
  process.planned = true;
  return process;
}

FlowRequest flow_request(const RunOptions& options, const LoadedModel& loaded) {
  return {.device = at::kMeta,
          .dtype = compute_type(options),
          .dropout = loaded.lora && loaded.lora->dropout > 0,
          .groups = loaded.groups};
}

/// Whether two micro-batches make tensors of the same sizes.
bool alike(const MicroBatch& a, const MicroBatch& b) {
  const auto same = [](const Sample& x, const Sample& y) {
    return x.tokens == y.tokens && x.labels == y.labels &&
           std::ranges::equal(x.media, y.media, {}, &MediaPatches::grid, &MediaPatches::grid);
  };
  return std::ranges::equal(a.rows, b.rows, [&](const Row& x, const Row& y) {
    return std::ranges::equal(x.samples, y.samples, same);
  });
}

/// What comes to each virtual stage: the forward pass of all layers, of which this rank has the
/// sizes, says it.
Forecast forecast_messages(const RunOptions& options, const LoadedModel& loaded,
                           const std::vector<MicroBatch>& micro_batches) {
  if (loaded.cut.stages == 1) return {};
  using OfStages = std::vector<std::vector<MessageField>>;
  std::vector<std::shared_ptr<OfStages>> messages;  // by micro-batch
  const auto fields = loaded.family->travelling_fields();
  for (const auto& p : loaded.model.parameters) {
    if (!p->on_stage) p->value.set_requires_grad(p->trained);
  }
  for (size_t i = 0; i < micro_batches.size(); ++i) {
    if (i > 0 && alike(micro_batches[i], micro_batches[i - 1])) {
      messages.push_back(messages.back());
      continue;
    }
    messages.push_back(std::make_shared<OfStages>());
    auto flow = loaded.family->make_flow(micro_batches[i], {}, flow_request(options, loaded));
    const auto& bounds = loaded.cut.bounds;
    for (size_t stage = 0; stage + 1 < bounds.size(); ++stage) {
      auto& message = messages.back()->emplace_back();
      for (const auto& name : fields) {
        const auto& value = flow.get(name);
        MessageField field;
        if (value.defined())
          field = {true, value.requires_grad(), {value.sizes().vec(), value.scalar_type()}};
        message.push_back(std::move(field));
      }
      run_layers(loaded.model, {bounds[stage], bounds[stage + 1]}, flow);
    }
  }
  if (loaded.model.shards) loaded.model.shards->release_all();
  return [messages = std::move(messages)](int64_t stage, int64_t micro_batch) {
    return messages.at(static_cast<size_t>(micro_batch))->at(static_cast<size_t>(stage));
  };
}

/// Attention's flop of a layer. They grow with the square of a sample's length: without them the
/// layer costs as if all samples were short.
double attention_flop(const Layer& layer, const FlowSize& size) {
  auto short_samples = size;
  short_samples.mean_square_length = short_samples.mean_square_frame_patches = 0;
  return layer.cost(size).forward_flop - layer.cost(short_samples).forward_flop;
}

constexpr double ChunkWork::* kChunkParts[] = {&ChunkWork::forward,
                                               &ChunkWork::backward_input,
                                               &ChunkWork::backward_weight,
                                               &ChunkWork::recomputed,
                                               &ChunkWork::attention_forward,
                                               &ChunkWork::attention_backward,
                                               &ChunkWork::attention_recomputed};

/// What of a layer is computed twice: of its attention and of its other products.
struct RecomputedShare {
  double attention = 0, products = 0;
};

RecomputedShare recomputed_share(const LayerRecompute& how) {
  if (how.again) return {.attention = how.keep_attention ? 0.0 : 1.0, .products = 1};
  const auto has = [&](std::string_view name) {
    const auto& modules = how.memory.modules;
    return std::find(modules.begin(), modules.end(), name) != modules.end();
  };
  // A third of the products are projections (query, key, value, output), two are the MLP's.
  return {.attention = has("attention") ? 1.0 : 0.0, .products = has("mlp") ? 2.0 / 3 : 0.0};
}

/// By the layers' own counts, shared out evenly over the ranks that cut a layer.
std::vector<ChunkWork> count_work_of(const RecomputePlan& recompute, const LoadedModel& loaded,
                                     const MicroBatch& batch, int64_t stage, int64_t ranks) {
  const auto size = loaded.family->flow_size(batch);
  std::vector<ChunkWork> chunks(static_cast<size_t>(loaded.cut.chunks));
  bool gradients_pass = false;
  for (size_t i = 0; i < loaded.model.layers.size(); ++i) {
    const auto& layer = *loaded.model.layers[i];
    const double attention = attention_flop(layer, size) / static_cast<double>(ranks);
    const double flop = layer.cost(size).forward_flop / static_cast<double>(ranks) - attention;
    bool weights = false, trained = false;
    for (const auto& p : layer.parameters()) {
      trained = trained || p->trained;
      weights = weights || (p->trained && p->name.find(".lora_") == std::string::npos);
    }
    const int64_t virtual_stage = loaded.cut.stage_of(static_cast<int64_t>(i));
    if (virtual_stage % loaded.cut.stages == stage) {
      auto& work = chunks[static_cast<size_t>(virtual_stage / loaded.cut.stages)];
      const bool backward = gradients_pass || trained;
      work.forward += flop;
      work.attention_forward += attention;
      work.backward_input += gradients_pass ? flop : 0;
      work.backward_weight += weights ? flop : 0;
      work.attention_backward += backward ? 2.5 * attention : 0;
      if (!recompute.empty() && backward) {
        const auto share = recomputed_share(recompute.of(i));
        work.recomputed += flop * share.products;
        work.attention_recomputed += attention * share.attention;
      }
    }
    gradients_pass = gradients_pass || trained;
  }
  return chunks;
}

/// The mean of the micro-batches.
std::vector<ChunkWork> count_work(const RecomputePlan& recompute, const LoadedModel& loaded,
                                  const std::vector<MicroBatch>& batches, int64_t stage,
                                  int64_t ranks) {
  auto mean = count_work_of(recompute, loaded, batches.front(), stage, ranks);
  auto last = mean;
  for (size_t i = 1; i < batches.size(); ++i) {
    if (!alike(batches[i], batches[i - 1]))
      last = count_work_of(recompute, loaded, batches[i], stage, ranks);
    // Of equal ones it is exactly what one of them has.
    for (size_t c = 0; c < mean.size(); ++c) {
      for (const auto part : kChunkParts)
        mean[c].*part += (last[c].*part - mean[c].*part) / static_cast<double>(i + 1);
    }
  }
  return mean;
}

/// Micro-batches after which memory has reached its peak, and by how many more a step grows: whole
/// groups of the interleaved schedule, and twice as many as a 1F1B pipeline ever has in flight. In
/// the second half gradients are there beside all activations.
struct Rounds {
  int64_t group = 1, some = 1;
};

Rounds rounds_of(const RunOptions& options, int64_t count) {
  const auto shape = pipeline_shape(options, 1);
  const int64_t group = shape.stages == 1 ? 1 : shape.group_size();
  return {.group = group, .some = count % group + group};
}

/// `count` of the micro-batches, evenly spread by their tokens, in the order in which they are
/// given.
std::vector<MicroBatch> evenly_spread(const std::vector<MicroBatch>& batches, int64_t count) {
  std::vector<std::pair<int64_t, size_t>> by_tokens;
  for (size_t i = 0; i < batches.size(); ++i) {
    by_tokens.emplace_back(0, i);
    for (const auto& row : batches[i].rows) {
      for (const auto& sample : row.samples)
        by_tokens.back().first += static_cast<int64_t>(sample.tokens.size());
    }
  }
  std::ranges::sort(by_tokens);
  std::vector<size_t> places;
  const auto all = static_cast<int64_t>(batches.size());
  for (int64_t i = 0; i < count; ++i)
    places.push_back(by_tokens[static_cast<size_t>((2 * i + 1) * all / (2 * count))].second);
  std::ranges::sort(places);
  std::vector<MicroBatch> chosen;
  for (const auto place : places) chosen.push_back(batches[place]);
  return chosen;
}

/// `more` with `part` times again what it has more than `less`.
RankPlan extend(const RankPlan& less, const RankPlan& more, double part) {
  auto plan = more;
  const auto add = [&](int64_t& value, int64_t a, int64_t b) {
    value = b + std::llround(static_cast<double>(b - a) * part);
  };
  add(plan.made_bytes, less.made_bytes, more.made_bytes);
  add(plan.made_tensors, less.made_tensors, more.made_tensors);
  add(plan.offloaded_bytes, less.offloaded_bytes, more.offloaded_bytes);
  for (auto& [key, traffic] : plan.traffic) {
    const auto it = less.traffic.find(key);
    const auto before = it == less.traffic.end() ? Traffic() : it->second;
    add(traffic.calls, before.calls, traffic.calls);
    add(traffic.bytes, before.bytes, traffic.bytes);
  }
  return plan;
}

}  // namespace

RankPlan plan_rank(const RunOptions& options, const MeshShape& mesh, int64_t processes,
                   int64_t rank, const std::vector<MicroBatch>& micro_batches,
                   int64_t ranks_per_host) {
  MetaMemory memory(options.device == DeviceKind::kCpu ? MetaKernels::kCpu : MetaKernels::kFused);
  ProcessContext process({.rank = rank,
                          .world_size = processes,
                          .local_rank = rank % ranks_per_host,
                          .local_world_size = std::min(ranks_per_host, processes)},
                         planned_process(options));
  process.set_mesh(mesh);
  RankPlan plan{.rank = rank, .place = process.coordinates()};

  const auto loaded = [&] {
    const MemoryScope scope(MemoryPhase::kLoad);
    return load_part(process, options, at::kMeta);
  }();
  const auto forecast = forecast_messages(options, loaded, micro_batches);
  for (const auto& p : loaded.model.parameters) {
    if (p->on_stage) {
      plan.parameters += p->value.numel();
    } else {
      forget_planned_memory(p->value);
    }
  }
  memory.restart();
  const auto groups = optimizer_groups(process, options, loaded);
  ShardedOptimizer optimizer(loaded.model.parameters, adamw_settings(options.optimizer),
                             sharding_settings(options), groups);
  plan.start_bytes = memory.peak().total();
  plan.host_state_bytes = memory.forgotten_bytes();
  plan.state_bytes = plan.host_state_bytes + memory.live().of(MetaMemoryKind::kOptimizer);
  const auto stage = Stage::make(process, options, loaded, at::kMeta, forecast);
  const auto settings = step_settings(options, loaded, at::kMeta);
  TrainStep step(loaded, optimizer, process.group({MeshDim::kData}), settings, stage.get());

  plan.chunks = count_work(settings.recompute, loaded, micro_batches,
                           plan.place[MeshDim::kPipeline], mesh.tensor * mesh.context);

  memory.restart();
  process.clear_traffic();
  step.run(micro_batches, /*step=*/1, options.optimizer.lr);
  // The sums of gradients stay for the next step. A step without a second half, in which they are
  // there beside all activations in flight, is not like those that follow.
  const auto in_flight = pipeline_shape(options, 1).virtual_stages();
  if (static_cast<int64_t>(micro_batches.size()) < 2 * in_flight) {
    memory.restart();
    process.clear_traffic();
    step.run(micro_batches, /*step=*/2, options.optimizer.lr);
  }
  plan.memory = memory.peak();
  plan.made_bytes = memory.allocated_bytes();
  plan.made_tensors = memory.allocations();
  plan.offloaded_bytes = memory.forgotten_bytes();
  plan.traffic = process.traffic();
  return plan;
}

RankPlan plan_rank(const RunOptions& options, const MeshShape& mesh, int64_t processes,
                   int64_t rank, const MicroBatch& micro_batch, int64_t count,
                   int64_t ranks_per_host) {
  const auto run = [&](int64_t micro_batches) {
    return plan_rank(options, mesh, processes, rank,
                     std::vector<MicroBatch>(static_cast<size_t>(micro_batches), micro_batch),
                     ranks_per_host);
  };
  const auto [group, some] = rounds_of(options, count);
  if (count <= some + group) return run(count);
  const auto less = run(some), more = run(some + group);
  return extend(less, more, static_cast<double>((count - some - group) / group));
}

RankPlan plan_step(const RunOptions& options, const MeshShape& mesh, int64_t processes,
                   int64_t rank, const std::vector<MicroBatch>& micro_batches,
                   int64_t ranks_per_host, int64_t most_run) {
  const auto count = static_cast<int64_t>(micro_batches.size());
  const auto run = [&](const std::vector<MicroBatch>& some) {
    return plan_rank(options, mesh, processes, rank, some, ranks_per_host);
  };
  const int64_t group = rounds_of(options, count).group;
  const int64_t sample = std::max<int64_t>(1, most_run / group) * group;
  if (count <= 2 * sample) return run(micro_batches);
  const auto once = evenly_spread(micro_batches, sample);
  auto twice = once;
  twice.insert(twice.end(), once.begin(), once.end());
  const auto less = run(once), more = run(twice);
  return extend(less, more, static_cast<double>(count - 2 * sample) / static_cast<double>(sample));
}

MemoryUse plan_memory(const RunOptions& options, const MeshShape& mesh, int64_t processes,
                      int64_t rank, const MicroBatch& micro_batch, int64_t count,
                      int64_t ranks_per_host) {
  const auto [group, some] = rounds_of(options, count);
  const auto enough = static_cast<size_t>(std::min(count, some + group));
  return plan_rank(options, mesh, processes, rank, std::vector<MicroBatch>(enough, micro_batch),
                   ranks_per_host)
      .memory;
}

}  // namespace triptych
