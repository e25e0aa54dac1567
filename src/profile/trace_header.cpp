#include "profile/trace_header.h"

#include <map>
#include <utility>

#include "train/loaded_model.h"
#include "train/run_setup.h"
#include "train/stage.h"

namespace triptych {

namespace {

/// Axes of the mesh, fastest varying first, as in "tp-cp-dp-pp".
std::string order_text(const std::vector<Axis>& order) {
  constexpr const char* kShort[] = {"tp", "cp", "dp", "pp"};
  std::string text;
  for (const auto axis : order)
    text += (text.empty() ? "" : "-") + std::string(kShort[static_cast<int>(axis)]);
  return text;
}

std::string schedule_name(const ParallelOptions& options) {
  if (options.schedule == PipelineOrder::kZeroBubbleH1) return "zb_h1";
  return options.virtual_chunks > 1 ? "interleaved" : "1f1b";
}

}  // namespace

Json run_header(const ProcessContext& process, const RunOptions& options, const RunFacts& facts,
                const std::string& version) {
  const auto& mesh = process.mesh();
  const auto& at = process.coordinates();
  const int64_t data = mesh.size(MeshDim::kData);
  return {{"program", "triptych"},
          {"version", version.substr(0, version.find('\n'))},
          {"model", facts.model.family->name()},
          {"run", options.output.filename().string()},
          {"host", process.host_name()},
          {"clock", "CLOCK_REALTIME"},
          {"parallel",
           {{"tensor", mesh.size(MeshDim::kTensor)},
            {"context", mesh.size(kContextGroup)},
            {"ulysses", mesh.size(MeshDim::kUlysses)},
            {"data", data},
            {"pipeline", mesh.size(MeshDim::kPipeline)},
            {"sequence", options.parallel.sequence},
            {"zero", options.parallel.zero}}},
          {"order", order_text(options.parallel.order)},
          {"coordinates",
           {{"tensor", at[MeshDim::kTensor]},
            {"context", at[MeshDim::kRing] * mesh.size(MeshDim::kUlysses) + at[MeshDim::kUlysses]},
            {"data", at[MeshDim::kData]},
            {"pipeline", at[MeshDim::kPipeline]}}},
          {"schedule", schedule_name(options.parallel)},
          {"chunks", options.parallel.virtual_chunks},
          {"micro_batches", options.train.global_batch / (options.train.micro_batch * data)},
          {"dtype", std::string(name_of(options.model.precision))},
          {"device", std::string(name_of(options.device))},
          {"threads", process.threads()}};
}

Json distributed_info(const ProcessContext& process, const RunOptions& options,
                      const Records& records) {
  const char* backend = options.device == DeviceKind::kCuda  ? "nccl"
                        : options.device == DeviceKind::kNpu ? "hccl"
                                                             : "gloo";
  std::map<std::string, std::vector<int64_t>> groups;
  for (const auto& [call, thread] : records.calls) groups.try_emplace(call.group, call.members);
  Json list = Json::array();
  for (const auto& [name, members] : groups)
    list.push_back({{"pg_name", name},
                    {"pg_desc", name},
                    {"backend_config", backend},
                    {"pg_size", members.size()},
                    {"ranks", members}});
  const size_t count = list.size();
  return {{"backend", backend},
          {"rank", process.rank()},
          {"world_size", process.world_size()},
          {"pg_count", count},
          {"pg_config", std::move(list)}};
}

}  // namespace triptych
