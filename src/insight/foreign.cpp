#include "insight/foreign.h"

#include "insight/event_args.h"

namespace triptych::insight {

void adapt_foreign_tracks(StringTable& strings, std::vector<Track>& tracks,
                          std::vector<TrackRole>& roles) {
  roles.assign(tracks.size(), TrackRole::kUsual);
  bool npu = false;
  for (const auto& track : tracks) npu = npu || strings[track.process] == "Ascend Hardware";
  if (!npu) return;
  for (size_t t = 0; t < tracks.size(); ++t) {
    const auto process = strings[tracks[t].process];
    const auto name = strings[tracks[t].name];
    auto& role = roles[t];
    if (process == "Ascend Hardware") {
      role = TrackRole::kDevice;
      if (tracks[t].device < 0) tracks[t].device = 0;
    } else if (process == "Communication" || process == "HCCL" ||
               process == "Communication(HCCL)") {
      // "Group n" lanes hold whole operations, "Plane n" lanes the tasks that they are made of.
      role = name.starts_with("Plane") ? TrackRole::kDerived : TrackRole::kCollectives;
      if (role == TrackRole::kCollectives && tracks[t].device < 0) tracks[t].device = 0;
    } else if (process == "Python") {
      role = TrackRole::kHost;
    } else if (process == "CANN") {
      role = TrackRole::kRuntime;
    } else {
      role = TrackRole::kDerived;  // overlap analysis, frequencies: computed from the others
    }
  }
}

void adapt_foreign_event(const StringTable& strings, TrackRole role, RawEvent& event) {
  if (role == TrackRole::kUsual || event.category != Category::kOther) return;
  const auto name = strings[event.name];
  switch (role) {
    case TrackRole::kDevice:
      event.category = name.starts_with("EVENT_") || name.starts_with("Notify_")
                           ? Category::kSync
                           : Category::kKernel;
      break;
    case TrackRole::kCollectives:
      event.category = Category::kKernel;
      break;
    case TrackRole::kHost:
      event.category =
          name.starts_with("ProfilerStep#") || name.find("::") == std::string_view::npos
              ? Category::kUserAnnotation
              : Category::kCpuOp;
      break;
    case TrackRole::kRuntime:
      event.category = Category::kRuntime;
      break;
    default:
      event.category = Category::kSpan;
  }
}

int64_t payload_bytes(std::string_view name, std::string_view dtype, int64_t in_elements,
                      int64_t out_elements) {
  const int64_t size = dtype_bytes(dtype);
  const bool gathers = name.find("gather") != std::string_view::npos ||
                       name.find("Gather") != std::string_view::npos || name == "recv";
  const int64_t elements =
      (gathers && out_elements > 0) || in_elements < 0 ? out_elements : in_elements;
  if (size == 0 || elements < 0 || elements > (int64_t{1} << 56)) return -1;
  return elements * size;
}

}  // namespace triptych::insight
