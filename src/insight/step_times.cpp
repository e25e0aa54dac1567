#include "insight/step_times.h"

#include <algorithm>
#include <set>

#include "insight/comm_calls.h"

namespace triptych::insight {
namespace {

bool is_receive(const Trace& t, EventId e) {
  const Collective* c = t.collective(e);
  if (c && c->name) {
    const auto type = collective_type(t.string(c->name));
    return type == "recv" ||
           (type == "send_recv" && c->dst_rank >= 0 && t.header_rank() == c->dst_rank);
  }
  const auto name = t.name(e);
  return name.find("recv") != std::string_view::npos || name.find("Recv") != std::string_view::npos;
}

Lanes device_lanes(const Trace& t) {
  Lanes lanes;
  lanes.source = "device";
  for (EventId e = 0; e < t.num_events(); ++e) {
    const Category c = t.category(e);
    if (c != Category::kKernel && c != Category::kMemcpy && c != Category::kMemset &&
        c != Category::kSync)
      continue;
    const Interval i{t.ts(e), t.end(e)};
    switch (t.work(e)) {
      case Work::kCompute:
        lanes.compute.push_back(i);
        break;
      case Work::kCommunication:
        lanes.communication.push_back(i);
        if (is_receive(t, e)) lanes.receive.push_back(i);
        break;
      case Work::kMemory:
        lanes.memory.push_back(i);
        break;
      case Work::kSync:
        lanes.sync.push_back(i);
        break;
      default:
        break;
    }
  }
  return lanes;
}

/// Threads whose operators count as computing: that of the steps and those of backward; all threads
/// where there is neither.
std::vector<bool> compute_threads(const Trace& t) {
  std::vector<bool> chosen(t.tracks().size());
  bool any = false;
  for (const auto& step : t.steps()) chosen[step.track] = any = true;
  for (const auto& op : t.ops())
    if (op.forward_thread != 0) chosen[t.track_of(op.event)] = any = true;
  for (EventId e = 0; e < t.num_events(); ++e)
    if (t.category(e) == Category::kCpuOp && t.name(e).starts_with("autograd::engine"))
      chosen[t.track_of(e)] = any = true;
  if (!any) chosen.assign(chosen.size(), true);
  return chosen;
}

Lanes cpu_lanes(const Trace& t) {
  Lanes lanes;
  lanes.source = "cpu";
  const auto chosen = compute_threads(t);
  bool records = false, gloo = false;
  for (EventId e = 0; e < t.num_events() && !records; ++e) {
    records = t.category(e) == Category::kCollective;
    gloo =
        gloo || (t.category(e) == Category::kUserAnnotation && t.work(e) == Work::kCommunication);
  }
  // One form of communication record only: the same call often appears in several.
  const Category communication = records ? Category::kCollective
                                 : gloo  ? Category::kUserAnnotation
                                         : Category::kCpuOp;
  for (uint32_t k = 0; k < t.tracks().size(); ++k) {
    const Track& track = t.tracks()[k];
    std::vector<Interval> compute, waits;
    for (EventId e = track.first_event; e < track.first_event + track.num_events; ++e) {
      const Interval i{t.ts(e), t.end(e)};
      if (t.work(e) == Work::kCommunication) {
        waits.push_back(i);
        if (t.category(e) != communication) continue;
        lanes.communication.push_back(i);
        if (is_receive(t, e)) lanes.receive.push_back(i);
      } else if (t.work(e) == Work::kCompute && chosen[k]) {
        compute.push_back(i);
      }
    }
    auto of_thread = subtract(merge(std::move(compute)), merge(std::move(waits)));
    lanes.compute.insert(lanes.compute.end(), of_thread.begin(), of_thread.end());
  }
  return lanes;
}

void merge_all(Lanes& lanes) {
  for (auto* list : {&lanes.compute, &lanes.communication, &lanes.receive, &lanes.memory,
                     &lanes.sync, &lanes.loader})
    *list = merge(std::move(*list));
}

/// `core_wait_ns` of "mm": {"<step>": ns}.
int64_t core_wait_of(const Json& metadata, int64_t step) {
  const auto at = Json::json_pointer("/mm/core_wait_ns/" + std::to_string(step));
  if (!metadata.is_object() || !metadata.contains(at)) return -1;
  return metadata[at].is_number_integer() ? metadata[at].get<int64_t>() : -1;
}

}  // namespace

bool is_loader_wait(std::string_view name) {
  return name.find("DataLoader") != std::string_view::npos ||
         name.find("dataloader") != std::string_view::npos || name.starts_with("loader") ||
         name.starts_with("data_wait") || name.starts_with("data wait");
}

Lanes lanes_of(const Trace& t) {
  Lanes lanes = t.has_device_work() ? device_lanes(t) : cpu_lanes(t);
  for (EventId e = 0; e < t.num_events(); ++e) {
    const Category c = t.category(e);
    if ((c == Category::kUserAnnotation || c == Category::kModule || c == Category::kOther) &&
        is_loader_wait(t.name(e)))
      lanes.loader.push_back({t.ts(e), t.end(e)});
  }
  merge_all(lanes);
  return lanes;
}

StepTimes split_window(const Lanes& lanes, int64_t begin, int64_t end) {
  StepTimes out;
  out.begin_ns = begin;
  out.end_ns = end;
  out.total = end - begin;
  const auto compute = clip(lanes.compute, begin, end),
             comm = clip(lanes.communication, begin, end);
  out.compute = union_length(compute);
  out.communication = union_length(comm);
  out.overlapped = union_length(intersect(compute, comm));
  out.compute_only = out.compute - out.overlapped;
  out.exposed = out.communication - out.overlapped;
  int64_t first = end;
  if (!compute.empty()) first = std::min(first, compute.front().begin);
  if (!comm.empty()) first = std::min(first, comm.front().begin);
  out.preparing = first - begin;
  out.free = out.total - out.preparing - out.compute_only - out.communication;
  out.bubble = union_length(subtract(clip(lanes.receive, begin, end), compute));
  out.stage = out.total - out.bubble;
  auto busy = compute;
  busy.insert(busy.end(), comm.begin(), comm.end());
  busy = merge(std::move(busy));
  const auto copies = subtract(clip(lanes.memory, first, end), busy);
  out.memory_copy = union_length(copies);
  busy.insert(busy.end(), copies.begin(), copies.end());
  out.sync = union_length(subtract(clip(lanes.sync, first, end), merge(std::move(busy))));
  out.loader_wait = union_length(clip(lanes.loader, begin, end));
  return out;
}

std::vector<StepTimes> step_times(const Run& run, int64_t span) {
  std::vector<StepTimes> out;
  for (const int file : run.files_of_span(span)) {
    const auto& f = run.files()[static_cast<size_t>(file)];
    const Trace& t = f.trace;
    if (t.num_events() == 0) continue;
    const Lanes lanes = lanes_of(t);
    const auto add = [&](int64_t step, int64_t begin, int64_t end) {
      StepTimes times = split_window(lanes, begin, end);
      times.rank = f.rank;
      times.step = step;
      times.file = file;
      times.core_wait = core_wait_of(t.metadata(), step);
      times.begin_ns = run.aligned(file, begin);
      times.end_ns = run.aligned(file, end);
      out.push_back(times);
    };
    for (const auto& step : t.steps()) add(step.number, step.begin_ns, step.end_ns);
    if (t.steps().empty()) add(-1, t.begin_ns(), t.end_ns());
  }
  return out;
}

Json to_json(const StepTimes& t) {
  Json out{{"rank", t.rank},
           {"step", t.step},
           {"begin_ns", t.begin_ns},
           {"total_ns", t.total},
           {"compute_ns", t.compute},
           {"communication_ns", t.communication},
           {"overlapped_ns", t.overlapped},
           {"compute_only_ns", t.compute_only},
           {"exposed_comm_ns", t.exposed},
           {"free_ns", t.free},
           {"preparing_ns", t.preparing},
           {"bubble_ns", t.bubble},
           {"stage_ns", t.stage},
           {"exposed_without_bubble_ns", std::max<int64_t>(0, t.exposed - t.bubble)},
           {"memory_copy_ns", t.memory_copy},
           {"sync_ns", t.sync},
           {"loader_wait_ns", t.loader_wait},
           {"overlap_ratio", t.overlap_ratio()}};
  if (t.core_wait >= 0) out["core_wait_ns"] = t.core_wait;
  return out;
}

}  // namespace triptych::insight
