#include "train/memory_use.h"

#include <ATen/DeviceAccelerator.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <array>
#include <functional>
#include <new>
#include <utility>

#include "base/format.h"
#include "kernels/device_memory.h"
#include "kernels/memory_report.h"
#include "kernels/memory_scope.h"
#include "train/stage.h"

namespace triptych {
namespace {

/// One change of the options and what it is good for.
struct Remedy {
  MemoryKind kind;  ///< that it takes less of
  std::string text;
  std::function<void(RunOptions&)> apply;
};

std::vector<Remedy> remedies(const RunOptions& now) {
  using Kind = MemoryKind;
  std::vector<Remedy> list;
  const auto& p = now.parallel;
  if (now.recompute.policy == RecomputePolicy::kNone) {
    list.push_back({Kind::kActivation,
                    "recompute.policy = \"selective\": cheap parts of layers are computed again in "
                    "backward",
                    [](RunOptions& o) { o.recompute.policy = RecomputePolicy::kSelective; }});
  }
  if (now.recompute.policy != RecomputePolicy::kFull) {
    list.push_back({Kind::kActivation,
                    "recompute.policy = \"full\": layers keep only their input for backward",
                    [](RunOptions& o) { o.recompute.policy = RecomputePolicy::kFull; }});
  }
  if (now.train.micro_batch > 1) {
    list.push_back(
        {Kind::kActivation,
         fmt::format("train.micro_batch = 1 (now {}): fewer rows at once, the same global batch",
                     now.train.micro_batch),
         [](RunOptions& o) { o.train.micro_batch = 1; }});
  }
  if (!now.recompute.offload) {
    list.push_back({Kind::kActivation,
                    "recompute.offload = true: what is kept for backward goes to host memory",
                    [](RunOptions& o) { o.recompute.offload = true; }});
  }
  list.push_back(
      {Kind::kActivation,
       fmt::format("data.max_length below {}: shorter rows", now.data.max_length),
       [](RunOptions& o) { o.data.max_length = std::max<int64_t>(1, o.data.max_length / 2); }});
  list.push_back({Kind::kActivation,
                  fmt::format("parallel.context above {}, on more processes: each holds a part of "
                              "the sequence",
                              p.context),
                  [](RunOptions& o) { o.parallel.context *= 2; }});
  const std::array sharded = {std::pair(Kind::kOptimizerState, "optimizer states"),
                              std::pair(Kind::kGradient, "gradients too"),
                              std::pair(Kind::kParameter, "parameters too")};
  for (int64_t zero = 1; zero <= 3; ++zero) {
    if (p.zero >= zero) continue;
    const auto& [kind, what] = sharded[static_cast<size_t>(zero - 1)];
    list.push_back({kind,
                    fmt::format("parallel.zero = {} (now {}): the data-parallel ranks share {}",
                                zero, p.zero, what),
                    [zero](RunOptions& o) { o.parallel.zero = zero; }});
  }
  if (p.zero > 0) {
    list.push_back({Kind::kOptimizerState,
                    "more data-parallel processes: they share the optimizer states",
                    [](RunOptions& /*o*/) {}});
  }
  if (!now.optimizer.offload) {
    list.push_back({Kind::kOptimizerState,
                    "optimizer.offload = true: masters and moments in host memory",
                    [](RunOptions& o) { o.optimizer.offload = true; }});
  }
  if (!now.model.lora) {
    list.push_back({Kind::kOptimizerState,
                    "[model.lora]: adapters are trained instead of the weights",
                    [](RunOptions& o) { o.model.lora.emplace(); }});
  }
  if (now.model.precision == Precision::kFp32) {
    list.push_back({Kind::kParameter, "model.precision = \"bf16\"",
                    [](RunOptions& o) { o.model.precision = Precision::kBf16; }});
  }
  list.push_back({Kind::kParameter,
                  fmt::format("parallel.tensor above {} or parallel.pipeline above {}, on more "
                              "processes: each holds a part of the weights",
                              p.tensor, p.pipeline),
                  [](RunOptions& o) { o.parallel.tensor *= 2; }});
  return list;
}

int64_t device_peak(at::Device device) {
  using c10::CachingAllocator::StatType;
  const auto stats = at::accelerator::getDeviceStats(device.index());
  return stats.allocated_bytes[static_cast<size_t>(StatType::AGGREGATE)].peak;
}

}  // namespace

LoadedModel load_counted(ProcessContext& process, const RunOptions& options, at::Device device) {
  const MemoryScope scope(MemoryPhase::kLoad);
  auto loaded = load_part(process, options, device);
  for (const auto& layer : loaded.model.layers) memory_layer(layer->name());
  for (const auto& p : loaded.model.parameters)
    tag_memory(p->value, MemoryKind::kParameter, p->name);
  return loaded;
}

std::vector<std::string> memory_advice(const RunOptions& options, const MemoryTotals& totals) {
  // What a remedy is good for, in bytes: temporaries go with the activations of their layers.
  const auto held = [&](MemoryKind kind) {
    int64_t bytes = totals.by_kind[static_cast<size_t>(kind)];
    if (kind == MemoryKind::kActivation)
      bytes += totals.by_kind[static_cast<size_t>(MemoryKind::kTemporary)];
    return bytes;
  };
  auto list = remedies(options);
  std::erase_if(list, [&](const Remedy& remedy) {
    if (held(remedy.kind) * 8 < totals.bytes) return true;  // not worth a change
    auto changed = options;
    remedy.apply(changed);
    Problems before, after;
    validate(options, before);
    check_supported(options, before);
    validate(changed, after);
    check_supported(changed, after);
    return after.messages().size() > before.messages().size();
  });
  std::ranges::stable_sort(list, std::ranges::greater(),
                           [&](const Remedy& remedy) { return held(remedy.kind); });
  std::vector<std::string> texts;
  for (auto& remedy : list) texts.push_back(std::move(remedy.text));
  return texts;
}

void open_memory_books(int64_t rank, const RunOptions& options, at::Device device) {
  follow_device_memory(device);
  set_memory_context({.rank = rank, .advice = [options](const MemoryTotals& totals) {
                        return memory_advice(options, totals);
                      }});
}

std::string out_of_memory_words(const std::exception& error) {
  if (dynamic_cast<const c10::OutOfMemoryError*>(&error) != nullptr) return device_memory_failure();
  if (dynamic_cast<const std::bad_alloc*>(&error) == nullptr) return {};
  // Its tensors are gone by now; the peak is what they held shortly before.
  return out_of_memory_text("memory that is no tensor's", error.what(), memory_peak());
}

StepMemory step_memory(ProcessContext& process, at::Device device) {
  StepMemory step;
  step.peak = memory_peak();
  reset_memory_peak();
  if (!device.is_cpu() && !device.is_cuda()) {
    step.peak = MemoryTotals();
    step.peak.bytes = device_peak(device);
  }
  step.ranks = {step.peak.bytes};
  if (process.world_size() == 1) return step;
  const auto peaks = at::zeros({process.world_size()}, at::kLong);
  auto* values = peaks.data_ptr<int64_t>();
  values[process.rank()] = step.peak.bytes;
  process.control().all_reduce(peaks, ReduceOp::kSum, "peaks of memory");
  step.ranks.assign(values, values + process.world_size());
  return step;
}

std::string peaks_text(const std::vector<int64_t>& ranks) {
  std::string text;
  for (size_t rank = 0; rank < ranks.size(); ++rank)
    text += fmt::format("{}rank {} {}", rank == 0 ? "" : ", ", rank, memory_text(ranks[rank]));
  return text;
}

}  // namespace triptych
