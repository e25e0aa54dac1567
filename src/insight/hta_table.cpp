#include "insight/hta_table.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <set>
#include <unordered_map>

namespace triptych::insight::hta {

Kind kind_of(std::string_view name) {
  const auto has = [&](std::string_view part) { return name.find(part) != std::string_view::npos; };
  const bool nccl = name.starts_with("nccl") && name.find("Kernel", 4) != std::string_view::npos;
  if (nccl) return Kind::kCommunication;
  if (name.starts_with("Memcpy") || name.starts_with("Memset") || name.starts_with("dma"))
    return Kind::kMemory;
  return has("Memcpy") || has("Sync") ? Kind::kOther : Kind::kComputation;
}

std::vector<Interval> group_intervals(std::vector<Interval> intervals) {
  std::ranges::stable_sort(intervals, {}, &Interval::begin);
  std::vector<Interval> groups;
  int64_t reached = INT64_MIN;
  for (const auto& i : intervals) {
    if (groups.empty() || i.begin > reached)
      groups.push_back(i);
    else
      groups.back().end = std::max(groups.back().end, i.end);
    reached = std::max(reached, i.end);
  }
  return groups;
}

int64_t sum_of_lengths(const std::vector<Interval>& groups) {
  int64_t sum = 0;
  for (const auto& i : groups) sum += i.length();
  return sum;
}

RankTable::RankTable(const Trace& t) : t_(t) {
  const char* off = std::getenv("HTA_DISABLE_NS_ROUNDING");
  bool fractions = false;
  for (EventId e = 0; e < t.num_events() && !fractions; ++e) fractions = t.ts(e) % 1000 != 0;
  rounded_ = fractions && !(off && std::string_view(off) == "1");
  exact_ = fractions && !rounded_;
  select();
}

Item RankTable::item(EventId e) const {
  if (exact_) return {e, t_.ts(e), t_.dur(e)};
  if (!rounded_) return {e, t_.ts(e) / 1000, t_.dur(e) / 1000};
  // In doubles, as pandas has them: their rounding decides where an end falls on a whole us.
  const auto ts = static_cast<double>(static_cast<long double>(t_.ts(e)) / 1000);
  const auto dur = static_cast<double>(static_cast<long double>(t_.dur(e)) / 1000);
  const auto begin = static_cast<int64_t>(std::ceil(ts)),
             end = static_cast<int64_t>(std::floor(ts + dur));
  return {e, begin, end - begin};
}

std::vector<Interval> RankTable::of_kind(Kind kind) const {
  std::vector<Interval> out;
  for (const auto& d : device_)
    if (kind_of(t_.name(d.event)) == kind) out.push_back(d.interval());
  return group_intervals(std::move(out));
}

namespace {

/// Waits that concern no one stream: HTA lets the device have them when it drops the last step, and
/// the host (stream -1) in its figures.
bool is_sync_of_no_stream(const Trace& t, EventId e) {
  return t.category(e) == Category::kSync &&
         (t.name(e) == "Event Sync" || t.name(e) == "Context Sync");
}

}  // namespace

bool RankTable::is_device(EventId e) const {
  const Category c = t_.category(e);
  const bool work = c == Category::kKernel || c == Category::kMemcpy || c == Category::kMemset ||
                    c == Category::kSync;
  return work && !is_sync_of_no_stream(t_, e) && t_.tracks()[t_.track_of(e)].tid >= 0;
}

void RankTable::select() {
  std::set<std::string_view> names;
  int64_t last = INT64_MIN;
  // Ranges on the device's lanes have no stream among their arguments: to HTA they are the host's,
  // and the last step begins where the later of its two marks does.
  for (EventId e = 0; e < t_.num_events(); ++e) {
    if (t_.name(e).find("ProfilerStep") == std::string_view::npos) continue;
    names.insert(t_.name(e));
    if (!is_device(e)) last = std::max(last, item(e).ts);
  }
  const bool drop = names.size() > 1;
  std::unordered_map<uint32_t, int> launches;
  for (EventId e = 0; e < t_.num_events(); ++e) {
    if (t_.category(e) == Category::kSpan || is_device(e) || is_sync_of_no_stream(t_, e)) continue;
    const Item i = item(e);
    if (drop && i.ts >= last) continue;
    host_.push_back(i);
    if (t_.correlation(e) != 0) ++launches[t_.correlation(e)];
  }
  for (EventId e = 0; e < t_.num_events(); ++e) {
    const bool device = is_device(e);
    if (!device && !is_sync_of_no_stream(t_, e)) continue;
    int copies = 1;
    if (drop) {
      const auto at = launches.find(t_.correlation(e));
      copies = at == launches.end() ? 0 : at->second;
    }
    for (int i = 0; i < copies; ++i) (device ? device_ : host_).push_back(item(e));
  }
  std::ranges::stable_sort(device_, {}, &Item::ts);
}

}  // namespace triptych::insight::hta
