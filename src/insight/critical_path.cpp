#include "insight/critical_path.h"

#include <algorithm>
#include <map>
#include <unordered_set>

#include "insight/timeline.h"
#include "insight/trace_tree.h"

namespace triptych::insight {
namespace {

constexpr const char* kBounds[] = {"cpu",           "compute", "communication", "launch",
                                   "kernel_kernel", "sync",    "idle"};

class Walker {
 public:
  Walker(const Run& run, int file, const Step& step)
      : t_(run.files()[static_cast<size_t>(file)].trace), file_(file), step_(step) {
    for (const Track& track : t_.tracks()) {
      if (!track.is_device()) continue;
      for (EventId e = track.first_event; e < track.first_event + track.num_events; ++e)
        if (t_.work(e) != Work::kNone && t_.work(e) != Work::kSync && t_.end(e) > step.begin_ns &&
            t_.ts(e) < step.end_ns)
          by_end_.push_back(e);
    }
    std::ranges::sort(by_end_, {}, [&](EventId e) { return t_.end(e); });
    for (const EventId e : by_end_) of_track_[t_.track_of(e)].push_back(e);
  }

  std::vector<PathPart> walk() {
    int64_t at = step_.end_ns;
    // The step ends with the device where this still works for it.
    EventId kernel = kNone;
    uint32_t track = step_.track;
    while (at > step_.begin_ns && parts_.size() < 1000000) {
      if (kernel != kNone) {
        const int64_t begin = std::max(t_.ts(kernel), step_.begin_ns);
        add(kernel, begin, at,
            t_.work(kernel) == Work::kCommunication ? PathPart::kCommunication
                                                    : PathPart::kCompute);
        at = begin;
        if (at <= step_.begin_ns) break;
        visited_.insert(kernel);
        const EventId launch = t_.linked(kernel);
        const EventId before = kernel_before(kernel);
        const int64_t launched = launch == kNone ? INT64_MIN : t_.ts(launch);
        if (before != kNone && t_.end(before) >= launched) {
          add(kNone, t_.end(before), at, PathPart::kKernelKernel);
          at = std::min(at, t_.end(before));
          kernel = before;
        } else if (launch != kNone && launched < at) {
          const int64_t from = std::max(launched, step_.begin_ns);
          add(launch, from, at, PathPart::kLaunch);
          at = from;
          track = t_.track_of(launch);
          kernel = kNone;
        } else {
          kernel = kNone;
        }
        continue;
      }
      host(track, at, kernel);
    }
    std::ranges::reverse(parts_);
    return std::move(parts_);
  }

 private:
  void add(EventId e, int64_t begin, int64_t end, PathPart::Bound bound) {
    begin = std::max(begin, step_.begin_ns);
    if (end > begin) parts_.push_back({file_, e, begin, end, bound});
  }

  /// What had to end before the kernel could begin: the kernel before on its stream; or one of
  /// another stream that ended later, which it waited for (the waits themselves are seldom
  /// recorded).
  EventId kernel_before(EventId kernel) const {
    const EventId own = latest(of_track_.at(t_.track_of(kernel)), t_.ts(kernel));
    const EventId any = latest(by_end_, t_.ts(kernel));
    return any != kNone && (own == kNone || t_.end(any) > t_.end(own)) ? any : own;
  }

  /// The last of a list (by end) that ended at or before `at` and is not on the path yet.
  EventId latest(const std::vector<EventId>& list, int64_t at) const {
    auto behind = std::ranges::upper_bound(list, at, {}, [&](EventId e) { return t_.end(e); });
    while (behind != list.begin() && visited_.contains(*std::prev(behind))) --behind;
    return behind == list.begin() ? kNone : *std::prev(behind);
  }

  static bool waits_for_device(std::string_view name) {
    return name.find("Synchronize") != std::string_view::npos || name.find("cudaMemcpy") == 0 ||
           name.find("hipMemcpy") == 0;
  }

  /// The deepest record on the track that ends at or covers `at`, back to where it began or the one
  /// before it ended.
  void host(uint32_t track_number, int64_t& at, EventId& kernel) {
    const Track& track = t_.tracks()[track_number];
    EventId deepest = kNone;
    int64_t from = step_.begin_ns;
    for (uint32_t r = 0; r < track.num_rows; ++r) {
      const Row& row = t_.rows()[track.first_row + r];
      const auto ts = t_.ts_column().subspan(row.first_event, row.num_events);
      const auto behind = std::ranges::lower_bound(ts, at);
      if (behind == ts.begin()) continue;
      const auto e = static_cast<EventId>(row.first_event + (behind - ts.begin()) - 1);
      if (t_.end(e) >= at)
        deepest = e, from = std::max(from, t_.ts(e));
      else
        from = std::max(from, t_.end(e));
    }
    from = std::min(std::max(from, step_.begin_ns), at - 1);
    if (deepest != kNone && waits_for_device(t_.name(deepest))) {
      const EventId ended = latest(by_end_, at);
      if (ended != kNone && t_.end(ended) > t_.ts(deepest)) {
        add(deepest, t_.end(ended), at, PathPart::kSync);
        at = t_.end(ended);
        kernel = ended;
        return;
      }
    }
    const bool communication = deepest != kNone && t_.work(deepest) == Work::kCommunication;
    const bool compute =
        deepest != kNone && t_.work(deepest) == Work::kCompute && !t_.has_device_work();
    add(deepest, from, at,
        deepest == kNone ? PathPart::kIdle
        : communication  ? PathPart::kCommunication
        : compute        ? PathPart::kCompute
                         : PathPart::kCpu);
    at = from;
  }

  const Trace& t_;
  int file_;
  Step step_;
  std::vector<EventId> by_end_;
  std::map<uint32_t, std::vector<EventId>> of_track_;
  std::unordered_set<EventId> visited_;
  std::vector<PathPart> parts_;
};

std::optional<Step> step_numbered(const Trace& t, std::optional<int64_t> number) {
  if (t.steps().empty()) return std::nullopt;
  if (!number) return t.steps()[t.steps().size() > 1 ? t.steps().size() - 2 : 0];
  for (const auto& s : t.steps())
    if (s.number == *number) return s;
  return std::nullopt;
}

}  // namespace

std::vector<PathPart> critical_path(const Run& run, int file, int64_t number) {
  const auto step = step_numbered(run.files()[static_cast<size_t>(file)].trace, number);
  return step ? Walker(run, file, *step).walk() : std::vector<PathPart>();
}

Json critical_path_json(const Run& run, int file, std::optional<int64_t> number) {
  const auto& f = run.files()[static_cast<size_t>(file)];
  const Trace& t = f.trace;
  const auto step = step_numbered(t, number);
  if (!step)
    return {
        {"parts", Json::array()},
        {"rows", Json::array()},
        {"empty", "this trace has no such step; steps are marked by scopes named ProfilerStep#n"}};
  const auto parts = Walker(run, file, *step).walk();
  std::map<std::string, int64_t> bounds;
  std::map<std::pair<std::string, int>, std::pair<int64_t, int64_t>> names;
  Json list = Json::array();
  for (const auto& p : parts) {
    bounds[std::string(kBounds[p.bound]) + "_ns"] += p.end_ns - p.begin_ns;
    const std::string name = p.event == kNone ? "(gap)" : display_name(t.name(p.event));
    auto& [ns, count] = names[{name, p.bound}];
    ns += p.end_ns - p.begin_ns, ++count;
    if (list.size() < 20000)
      list.push_back({{"id", p.event == kNone ? Json(nullptr) : Json(slice_id(file, p.event))},
                      {"name", name},
                      {"begin_ns", run.aligned(file, p.begin_ns)},
                      {"end_ns", run.aligned(file, p.end_ns)},
                      {"bound", kBounds[p.bound]}});
  }
  std::vector<std::pair<std::pair<std::string, int>, std::pair<int64_t, int64_t>>> order(
      names.begin(), names.end());
  std::ranges::stable_sort(order, std::ranges::greater(),
                           [](const auto& n) { return n.second.first; });
  Json rows = Json::array();
  for (size_t i = 0; i < order.size() && i < 200; ++i)
    rows.push_back({{"name", order[i].first.first},
                    {"bound", kBounds[order[i].first.second]},
                    {"total_ns", order[i].second.first},
                    {"count", order[i].second.second}});
  Json what_if = Json::array();
  for (const auto& [bound, ns] : bounds)
    what_if.push_back({{"class", bound.substr(0, bound.size() - 3)},
                       {"factor", 0.5},
                       {"length_ns", step->duration_ns() - ns / 2}});
  return {{"rank", f.rank},
          {"step", step->number},
          {"length_ns", step->duration_ns()},
          {"bounds", bounds},
          {"parts", std::move(list)},
          {"rows", std::move(rows)},
          {"what_if", std::move(what_if)}};
}

}  // namespace triptych::insight
