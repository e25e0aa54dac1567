#include "insight/finding_places.h"

#include <algorithm>

namespace triptych::insight {
namespace {

const CommPart* part_of(const CommCall& call, int64_t rank) {
  const auto at = std::ranges::find(call.parts, rank, &CommPart::rank);
  return at == call.parts.end() ? nullptr : &*at;
}

}  // namespace

std::optional<uint64_t> place_of_step(const Run& run, const StepTimes& step) {
  const Trace& t = run.files()[static_cast<size_t>(step.file)].trace;
  const auto at = std::ranges::find(t.steps(), step.step, &Step::number);
  if (at == t.steps().end()) return {};
  return slice_id(step.file, at->event);
}

std::optional<uint64_t> place_of_loader_wait(const Run& run, int file,
                                             std::optional<int64_t> step) {
  if (file < 0) return {};
  const Trace& t = run.files()[static_cast<size_t>(file)].trace;
  int64_t from = INT64_MIN, to = INT64_MAX, longest = 0;
  for (const auto& s : t.steps())
    if (step && s.number == *step) from = s.begin_ns, to = s.end_ns;
  std::optional<uint64_t> place;
  for (EventId e = 0; e < t.num_events(); ++e) {
    if (t.dur(e) <= longest || t.ts(e) < from || t.ts(e) >= to || !is_loader_wait(t.name(e)))
      continue;
    longest = t.dur(e);
    place = slice_id(file, e);
  }
  return place;
}

std::optional<uint64_t> place_of_link(const CommCalls& calls, int64_t src, int64_t dst) {
  std::optional<uint64_t> place;
  double slowest = 0;
  bool message = false;
  for (const auto& call : calls.calls) {
    const bool direct = call.message && call.src == src && call.dst == dst;
    if (call.bytes <= 0 || (!direct && (call.message || message))) continue;
    const CommPart* from = part_of(call, src);
    const CommPart* to = part_of(call, dst);
    if (from == nullptr && to == nullptr) continue;
    if (!direct && (from == nullptr || to == nullptr)) continue;
    const double per_byte =
        static_cast<double>(call.transit_ns()) / static_cast<double>(call.bytes);
    if (direct && !message) message = true, slowest = 0;
    if (per_byte <= slowest) continue;
    slowest = per_byte;
    const CommPart& shown = to != nullptr ? *to : *from;
    place = slice_id(shown.file, shown.event);
  }
  return place;
}

std::optional<uint64_t> place_of_wait(const CommCalls& calls) {
  std::optional<uint64_t> place;
  int64_t longest = 0;
  for (const auto& call : calls.calls) {
    for (const auto& part : call.parts) {
      if (call.wait_ns(part) <= longest) continue;
      longest = call.wait_ns(part);
      place = slice_id(part.file, part.event);
    }
  }
  return place;
}

}  // namespace triptych::insight
