#include "insight/snapshot_curve.h"

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "insight/memory_categories.h"
#include "insight/memory_view.h"
#include "insight/timeline.h"

namespace triptych::insight {
namespace {

/// What blocks are grouped by.
struct Group {
  std::string category, module, op;
  auto operator<=>(const Group&) const = default;
};

struct Sum {
  int64_t bytes = 0, count = 0;
};

struct Event {
  int64_t t_us;
  int64_t bytes;  ///< negative: released
  uint32_t group;
};

int64_t whole(const Json& object, const char* key) {
  const auto at = object.find(key);
  return at != object.end() && at->is_number_integer() ? at->get<int64_t>() : 0;
}
std::string word(const Json& object, const char* key) {
  const auto at = object.find(key);
  return at != object.end() && at->is_string() ? at->get<std::string>() : "";
}

/// Groups of blocks and events by number, and what is alive.
class History {
 public:
  explicit History(const Json& snapshot) {
    for (const auto& segment : snapshot.value("segments", Json::array())) {
      if (!segment.is_object()) continue;
      for (const auto& block : segment.value("blocks", Json::array())) {
        if (!block.is_object() || word(block, "state") != "active_allocated") continue;
        add(group_of(block), whole(block, "size"), 1);
      }
    }
    for (const auto& trace : snapshot.value("device_traces", Json::array())) {
      if (!trace.is_array() || trace.empty()) continue;
      for (const auto& e : trace) {
        if (!e.is_object()) continue;
        const auto action = word(e, "action");
        const int64_t size = whole(e, "size");
        if (action == "alloc") events_.push_back({whole(e, "time_us"), size, group_of(e)});
        if (action == "free_completed" || action == "free")
          events_.push_back({whole(e, "time_us"), -size, group_of(e)});
      }
    }
    std::ranges::stable_sort(events_, {}, &Event::t_us);
    // From the end back to the begin.
    for (auto e = events_.rbegin(); e != events_.rend(); ++e)
      add(e->group, -e->bytes, e->bytes < 0 ? 1 : -1);
  }

  Json curve(int64_t points) {
    const int64_t begin = begin_us(), span = std::max<int64_t>(1, end_us() - begin + 1);
    struct Point {
      int64_t t = 0, allocated = -1;
      std::vector<int64_t> by_category;
    };
    std::vector<Point> high(static_cast<size_t>(points));
    const auto [names, column] = columns();
    std::vector<int64_t> by_category(names.size());
    for (size_t g = 0; g < groups_.size(); ++g) by_category[column[g]] += sums_[g].bytes;
    int64_t now = total_;
    // The highest moment of every stretch, with its parts: no peak is lost, and the parts add up.
    const auto look = [&](int64_t t) {
      const auto bucket = static_cast<size_t>(
          static_cast<double>(t - begin) / static_cast<double>(span) * static_cast<double>(points));
      auto& p = high[std::min(bucket, high.size() - 1)];
      if (now > p.allocated) p = {t, now, by_category};
    };
    look(begin);
    for (const auto& e : events_) {
      now += e.bytes;
      by_category[column[e.group]] += e.bytes;
      look(e.t_us);
    }
    Json list = Json::array();
    std::map<std::string, Json> categories;
    for (const auto& p : high) {
      if (p.allocated < 0) continue;
      list.push_back({{"t", (p.t - begin) * 1000}, {"allocated", p.allocated}, {"reserved", -1}});
      for (size_t c = 0; c < names.size(); ++c) {
        auto& values = categories[names[c]];
        if (values.is_null()) values = Json::array();
        values.push_back(p.by_category[c]);
      }
    }
    return {{"points", list}, {"rows", list}, {"categories", categories}};
  }

  Json peak() {
    int64_t now = total_, most = total_, at = begin_us();
    size_t behind = 0;
    for (size_t i = 0; i < events_.size(); ++i) {
      now += events_[i].bytes;
      if (now <= most) continue;
      most = now, behind = i + 1, at = events_[i].t_us;
    }
    for (size_t i = 0; i < behind; ++i)
      add(events_[i].group, events_[i].bytes, events_[i].bytes < 0 ? -1 : 1);
    const auto share = [&](int64_t bytes) {
      return most > 0 ? static_cast<double>(bytes) / static_cast<double>(most) : 0;
    };
    std::vector<size_t> order;
    std::map<std::string, int64_t> categories;
    BytesByModule modules;
    for (size_t g = 0; g < groups_.size(); ++g) {
      if (sums_[g].bytes <= 0) continue;
      order.push_back(g);
      categories[groups_[g].category] += sums_[g].bytes;
      modules[groups_[g].module][groups_[g].category] += sums_[g].bytes;
    }
    std::ranges::stable_sort(order, std::ranges::greater(),
                             [&](size_t g) { return sums_[g].bytes; });
    Json rows = Json::array();
    for (const size_t g : order) {
      if (rows.size() == 200) break;
      rows.push_back({{"category", groups_[g].category},
                      {"module", display_name(groups_[g].module)},
                      {"op", display_name(groups_[g].op)},
                      {"bytes", sums_[g].bytes},
                      {"count", sums_[g].count},
                      {"share", share(sums_[g].bytes)}});
    }
    return {{"peak_ns", (at - begin_us()) * 1000},
            {"allocated", most},
            {"categories", shown_sums(categories)},
            {"layers", layer_rows(modules, most)},
            {"rows", std::move(rows)}};
  }

 private:
  int64_t begin_us() const { return events_.empty() ? 0 : events_.front().t_us; }
  int64_t end_us() const { return events_.empty() ? 0 : events_.back().t_us; }

  struct Columns {
    std::vector<std::string> names;
    std::vector<size_t> of_group;
  };
  /// The categories that are shown: those that hold most at their own peaks.
  Columns columns() const {
    std::map<std::string, int64_t> now, most;
    for (size_t g = 0; g < groups_.size(); ++g) now[groups_[g].category] += sums_[g].bytes;
    most = now;
    for (const auto& e : events_) {
      auto& bytes = now[groups_[e.group].category];
      bytes += e.bytes;
      auto& high = most[groups_[e.group].category];
      high = std::max(high, bytes);
    }
    const ShownCategories shown(most);
    Columns out;
    std::map<std::string, size_t> number;
    for (const auto& group : groups_) {
      const auto [at, added] = number.try_emplace(shown.shown_as(group.category), out.names.size());
      if (added) out.names.push_back(at->first);
      out.of_group.push_back(at->second);
    }
    return out;
  }

  uint32_t group_of(const Json& holder) {
    Group group{.category = word(holder, "category"), .module = {}, .op = {}};
    if (group.category.empty()) group.category = "unknown";
    const auto frames = holder.find("frames");
    if (frames != holder.end() && frames->is_array() && !frames->empty() &&
        frames->front().is_object()) {
      group.module = word(frames->front(), "name").substr(0, 240);
      group.op = word(frames->front(), "filename").substr(0, 240);
    }
    const auto [at, is_new] = numbers_.try_emplace(group, static_cast<uint32_t>(groups_.size()));
    if (is_new) {
      groups_.push_back(std::move(group));
      sums_.emplace_back();
    }
    return at->second;
  }

  void add(uint32_t group, int64_t bytes, int64_t count) {
    sums_[group].bytes += bytes;
    sums_[group].count += count;
    total_ += bytes;
  }

  std::map<Group, uint32_t> numbers_;
  std::vector<Group> groups_;
  std::vector<Sum> sums_;  ///< by group
  int64_t total_ = 0;
  std::vector<Event> events_;
};

}  // namespace

Json snapshot_history(const Json& snapshot, int64_t points) {
  History history(snapshot);
  auto curve = history.curve(std::clamp<int64_t>(points, 16, 20000));
  auto peak = history.peak();  // last: it walks to the peak
  curve["peak"] = {{"t", peak["peak_ns"]}, {"allocated", peak["allocated"]}};
  return {{"curve", std::move(curve)}, {"peak", std::move(peak)}};
}

}  // namespace triptych::insight
