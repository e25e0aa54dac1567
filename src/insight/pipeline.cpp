#include "insight/pipeline.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <set>
#include <tuple>

#include "insight/intervals.h"
#include "insight/statistics.h"

namespace triptych::insight {
namespace {

struct Action {
  char kind = 'F';
  int64_t stage = 0, chunk = 0, micro_batch = 0;
  int64_t begin = 0, end = 0;
  int64_t rank = 0;
  int64_t position = 0;  ///< among the virtual stages: who comes before and after
  uint64_t id = 0;
};

Json to_json(const Action& a) {
  return {{"kind", std::string(1, a.kind)},
          {"micro_batch", a.micro_batch},
          {"chunk", a.chunk},
          {"stage", a.stage},
          {"begin_ns", a.begin},
          {"end_ns", a.end},
          {"id", a.id}};
}

/// Larger numbers are no stages and batches, and products of smaller ones fit into 64 bits.
constexpr int64_t kMostNumber = int64_t{1} << 31;

std::optional<int64_t> number_after(std::string_view text, std::string_view word) {
  const auto at = text.find(word);
  if (at == std::string_view::npos) return std::nullopt;
  const char* p = text.data() + at + word.size();
  while (p < text.data() + text.size() && (*p == ' ' || *p == '=' || *p == ':')) ++p;
  int64_t value = 0;
  const auto [behind, error] = std::from_chars(p, text.data() + text.size(), value);
  if (error != std::errc() || value < 0 || value > kMostNumber) return std::nullopt;
  return value;
}

std::optional<Action> parse_action(std::string_view name) {
  if (name.size() < 10 || (name[0] != 'F' && name[0] != 'B' && name[0] != 'I' && name[0] != 'W') ||
      name[1] != ' ')
    return std::nullopt;
  const auto stage = number_after(name, "stage");
  auto batch = number_after(name, "micro-batch");
  if (!batch) batch = number_after(name, "micro_batch");
  const auto chunk = number_after(name, "chunk");
  if (!stage || !batch || (!chunk && name.find("chunk") != std::string_view::npos))
    return std::nullopt;
  Action a;
  a.kind = name[0];
  a.stage = *stage;
  a.micro_batch = *batch;
  a.chunk = chunk.value_or(0);
  return a;
}

/// "stage" of a name is the rank's place, or already counts chunks: then a rank has several.
void set_positions(std::vector<Action>& actions) {
  std::map<int64_t, std::set<int64_t>> stages_of;
  int64_t stages = 1;  // also those that were not recorded
  for (const auto& a : actions) {
    stages_of[a.rank].insert(a.stage);
    stages = std::max(stages, a.stage + 1);
  }
  const bool places =
      std::ranges::all_of(stages_of, [](const auto& entry) { return entry.second.size() == 1; });
  for (auto& a : actions) a.position = places ? a.chunk * stages + a.stage : a.stage;
}

/// A forward waits for that of the stage before; a backward for that of the stage behind and for
/// its own forward; the weights' part for the inputs' part.
using Key = std::tuple<char, int64_t, int64_t>;  // F, B (or I) or W, position, micro-batch
Key key_of(const Action& a) { return {a.kind == 'I' ? 'B' : a.kind, a.position, a.micro_batch}; }
std::vector<Key> needs(const Action& a) {
  if (a.kind == 'F') return {{'F', a.position - 1, a.micro_batch}};
  if (a.kind == 'W') return {{'B', a.position, a.micro_batch}};
  return {{'B', a.position + 1, a.micro_batch}, {'F', a.position, a.micro_batch}};
}

/// The same actions in the same order, each as long as the median of its like and begun as soon as
/// what it needs is done: what the schedule costs without links and without noise. One rank a
/// stage.
Json ideal_schedule(const std::map<std::pair<int64_t, int64_t>, std::vector<Action>>& by_stage) {
  std::map<std::pair<char, int64_t>, std::vector<double>> lengths;
  std::vector<std::vector<Action>> lines;
  std::set<int64_t> taken;
  std::set<Key> there;
  for (const auto& [key, list] : by_stage) {
    for (const auto& a : list)
      lengths[{a.kind, a.position}].push_back(static_cast<double>(a.end - a.begin));
    if (!taken.insert(key.first).second) continue;
    lines.push_back(list);
    for (const auto& a : list) there.insert(key_of(a));
  }
  std::map<std::pair<char, int64_t>, int64_t> usual;
  for (auto& [like, list] : lengths) usual[like] = static_cast<int64_t>(median(std::move(list)));
  std::map<Key, int64_t> done;
  std::vector<size_t> next(lines.size());
  std::vector<int64_t> free(lines.size());
  int64_t pipe = 0;
  for (bool moved = true; moved;) {
    moved = false;
    for (size_t l = 0; l < lines.size(); ++l) {
      while (next[l] < lines[l].size()) {
        Action& a = lines[l][next[l]];
        int64_t ready = free[l];
        bool waits = false;
        for (const Key& key : needs(a)) {
          const auto at = done.find(key);
          if (at != done.end())
            ready = std::max(ready, at->second);
          else
            waits = waits || there.contains(key);
        }
        if (waits) break;
        a.begin = ready;
        a.end = ready + usual.at({a.kind, a.position});
        free[l] = done[key_of(a)] = a.end;
        pipe = std::max(pipe, a.end);
        ++next[l];
        moved = true;
      }
    }
  }
  Json stages = Json::array();
  double bubble = 0;
  for (const auto& line : lines) {
    int64_t busy = 0;
    Json rows = Json::array();
    for (const auto& a : line) busy += a.end - a.begin, rows.push_back(to_json(a));
    if (pipe > 0) bubble += 1 - static_cast<double>(busy) / static_cast<double>(pipe);
    stages.push_back(
        {{"stage", line.front().stage}, {"rank", line.front().rank}, {"actions", std::move(rows)}});
  }
  for (size_t l = 0; l < lines.size(); ++l)  // an order that cannot be: nothing to show
    if (next[l] < lines[l].size()) return nullptr;
  return {{"pipe_ns", pipe},
          {"bubble_share", bubble / static_cast<double>(lines.size())},
          {"stages", std::move(stages)}};
}

std::string text_of(const Json& object, const char* key, const std::string& otherwise) {
  return object.is_object() && object.contains(key) && object[key].is_string()
             ? object[key].get<std::string>()
             : otherwise;
}

}  // namespace

double theoretical_bubble(std::string_view schedule, int64_t p, int64_t m, int64_t v) {
  if (p < 2 || m < 1) return 0;
  const auto stages = static_cast<double>(p), batches = static_cast<double>(m),
             chunks = static_cast<double>(std::max<int64_t>(1, v));
  // ZB-H1 with F = I = W: bubble (p-1)(F+I-W) beside m(F+I+W) of work.
  if (schedule.find("zb") != std::string_view::npos ||
      schedule.find("zero") != std::string_view::npos)
    return (stages - 1) / (3 * batches + stages - 1);
  return (stages - 1) / (chunks * batches + stages - 1);
}

Json pipeline_json(const Run& run, int64_t span, std::optional<int64_t> step) {
  std::vector<Action> actions;
  std::optional<int64_t> chosen = step;
  for (const int file : run.files_of_span(span)) {
    const auto& f = run.files()[static_cast<size_t>(file)];
    const Trace& t = f.trace;
    // The last step but one by default: the last is often cut.
    if (!chosen && !t.steps().empty())
      chosen = t.steps()[t.steps().size() > 1 ? t.steps().size() - 2 : 0].number;
    int64_t from = INT64_MIN, to = INT64_MAX;
    for (const auto& s : t.steps())
      if (chosen && s.number == *chosen) from = s.begin_ns, to = s.end_ns;
    std::vector<int8_t> known(t.num_strings(), -1);
    for (EventId e = 0; e < t.num_events(); ++e) {
      auto& memo = known[t.name_id(e)];
      if (memo < 0) memo = parse_action(t.name(e)).has_value();
      if (!memo || t.ts(e) < from || t.ts(e) >= to || t.tracks()[t.track_of(e)].is_device())
        continue;
      Action a = *parse_action(t.name(e));
      int64_t begin = t.ts(e), end = t.end(e);
      if (t.has_device_work()) {
        // What the device did for it, where the scope only launched.
        int64_t first = INT64_MAX, last = INT64_MIN;
        const Track& track = t.tracks()[t.track_of(e)];
        for (uint32_t k = 0; k < t.tracks().size(); ++k) {
          const Track& other = t.tracks()[k];
          if (other.is_device() || other.pid != track.pid) continue;
          for (uint32_t r = 0; r < other.num_rows; ++r) {
            const Row& row = t.rows()[other.first_row + r];
            const auto ts = t.ts_column().subspan(row.first_event, row.num_events);
            auto at = std::ranges::lower_bound(ts, t.ts(e));
            for (; at != ts.end() && *at < t.end(e); ++at) {
              const auto launch = static_cast<EventId>(row.first_event + (at - ts.begin()));
              const EventId kernel = t.linked(launch);
              if (kernel == kNone || t.work(kernel) != Work::kCompute ||
                  t.category(launch) == Category::kCpuOp)
                continue;
              first = std::min(first, t.ts(kernel));
              last = std::max(last, t.end(kernel));
            }
          }
        }
        if (first < last) begin = first, end = last;
      }
      a.begin = run.aligned(file, begin);
      a.end = run.aligned(file, end);
      a.rank = f.rank;
      a.id = slice_id(file, e);
      actions.push_back(a);
    }
  }
  Json out{{"step", chosen ? Json(*chosen) : Json(nullptr)}, {"stages", Json::array()}};
  if (actions.empty()) {
    out["empty"] =
        "no pipeline actions were recorded; they appear in runs with parallel.pipeline > 1 and "
        "profile.level >= 1";
    return out;
  }
  set_positions(actions);
  std::map<std::pair<int64_t, int64_t>, std::vector<Action>> by_stage;  // (stage of chunk 0, rank)
  std::map<int64_t, int64_t> first_stage;                               // rank -> least stage
  int64_t begin = INT64_MAX, end = INT64_MIN, chunks = 1, batches = 0;
  std::set<int64_t> stages;
  for (const auto& a : actions) {
    const auto [at, added] = first_stage.try_emplace(a.rank, a.stage);
    at->second = std::min(at->second, a.stage);
    begin = std::min(begin, a.begin);
    end = std::max(end, a.end);
    chunks = std::max(chunks, a.chunk + 1);
    batches = std::max(batches, a.micro_batch + 1);
  }
  for (const auto& a : actions) by_stage[{first_stage[a.rank], a.rank}].push_back(a);
  for (const auto& [rank, s] : first_stage) stages.insert(s);
  const int64_t pipe = end - begin;
  double bubble_sum = 0;
  // When each stage finished a forward (or backward) of a micro-batch: who is waited for.
  std::map<Key, int64_t> done;
  for (const auto& a : actions) {
    auto& at = done[key_of(a)];
    at = std::max(at, a.end);
  }
  for (auto& [key, list] : by_stage) {
    std::ranges::sort(list, {}, &Action::begin);
    std::vector<Interval> busy;
    Json rows = Json::array();
    for (const auto& a : list) {
      busy.push_back({a.begin, a.end});
      rows.push_back(to_json(a));
    }
    busy = merge(std::move(busy));
    const int64_t busy_ns = union_length(busy);
    int64_t steady = 0;
    Json gaps = Json::array();
    for (size_t i = 1; i < busy.size(); ++i) {
      const Interval gap{busy[i - 1].end, busy[i].begin};
      steady += gap.length();
      const auto next = std::ranges::lower_bound(list, gap.end, {}, &Action::begin);
      std::string cause = "own";
      if (next != list.end() && next->kind != 'W') {
        const auto sender = done.find(needs(*next).front());
        // Late work of the neighbour explains the gap up to its end, the way over the link the
        // rest.
        if (sender != done.end())
          cause = sender->second > gap.begin + gap.length() / 2 ? "previous stage late"
                  : sender->second > gap.begin - gap.length()   ? "link"
                                                                : "own";
      }
      gaps.push_back({{"begin_ns", gap.begin}, {"end_ns", gap.end}, {"cause", cause}});
    }
    const double share =
        pipe > 0 ? 1 - static_cast<double>(busy_ns) / static_cast<double>(pipe) : 0;
    bubble_sum += share;
    out["stages"].push_back({{"stage", key.first},
                             {"rank", key.second},
                             {"busy_ns", busy_ns},
                             {"bubble_ns", pipe - busy_ns},
                             {"bubble_share", share},
                             {"warmup_ns", busy.empty() ? 0 : busy.front().begin - begin},
                             {"steady_ns", steady},
                             {"cooldown_ns", busy.empty() ? 0 : end - busy.back().end},
                             {"gaps", std::move(gaps)},
                             {"actions", std::move(rows)}});
  }
  const Json info = run.model_info();
  const std::string schedule = text_of(info, "schedule", chunks > 1 ? "interleaved" : "1f1b");
  const auto num_stages = static_cast<int64_t>(stages.size());
  const double theory = theoretical_bubble(schedule, num_stages, batches, chunks);
  const double share = bubble_sum / static_cast<double>(by_stage.size());
  out["pipe_ns"] = pipe;
  out["begin_ns"] = begin;
  out["bubble_share"] = share;
  out["theory"] = {{"schedule", schedule},
                   {"bubble_share", theory},
                   {"stages", num_stages},
                   {"micro_batches", batches},
                   {"chunks", chunks}};
  out["excess"] = share - theory;
  out["ideal"] = ideal_schedule(by_stage);
  return out;
}

}  // namespace triptych::insight
