#include "profile/own_events.h"

#include <algorithm>
#include <map>
#include <set>
#include <vector>

#include "base/format.h"
#include "base/json.h"

namespace triptych {

namespace {

/// Above every thread's number (/proc/sys/kernel/pid_max is at most 2^22).
constexpr int64_t kFirstLane = int64_t{1} << 23;

std::string json_text(std::string_view text) { return dump_json(Json(std::string(text))); }

std::string length(int64_t ns) {
  const int64_t most = std::max<int64_t>(ns, 0);
  return fmt::format("{}.{:03}", most / 1000, most % 1000);
}

constexpr int64_t kShownWait = 1000;

class Writer {
 public:
  Writer(int64_t base_ns, int64_t pid) : base_ns_(base_ns), pid_(pid) {}

  void range(std::string_view category, std::string_view name, int64_t thread, int64_t begin_ns,
             int64_t end_ns, std::string_view args) {
    fmt::format_to(
        std::back_inserter(text_),
        "\n  {{\n    \"ph\": \"X\", \"cat\": \"{}\", \"name\": {}, \"pid\": {}, \"tid\": "
        "{},\n    \"ts\": {}, \"dur\": {},\n    \"args\": {{{}}}\n  }},",
        category, json_text(name), pid_, thread, trace_time(begin_ns, base_ns_),
        length(end_ns - begin_ns), args);
  }

  void call(const RecordedCall& recorded) {
    const auto& c = recorded.call;
    const bool message = c.src >= 0;
    std::string ranks;
    for (const auto rank : c.members) ranks += fmt::format("{}{}", ranks.empty() ? "" : ", ", rank);
    std::string args = fmt::format(
        "\"Collective name\": \"{}\", \"In msg nelems\": {}, \"Out msg nelems\": {}, "
        "\"Group size\": {}, \"dtype\": \"{}\", \"Process Group Name\": {}, "
        "\"Process Group Description\": {}, \"Process Group Ranks\": \"[{}]\", \"Bytes\": {}, "
        "\"Group tag\": {}, \"Seq\": {}, \"Wait us\": {}",
        c.type, c.in_elements, c.out_elements, c.members.size(), c.dtype, json_text(c.group),
        json_text(c.group), ranks, c.bytes, json_text(c.tag), c.sequence, length(c.wait_ns));
    if (message) args += fmt::format(", \"Src Rank\": {}, \"Dst Rank\": {}", c.src, c.dst);
    if (!c.label.empty()) args += ", \"Label\": " + json_text(c.label);
    const bool apart = c.beside || message;
    const int64_t thread =
        apart ? lane(message ? c.group + " " + c.type : c.group, c) : recorded.thread;
    const auto name = c.tag + " " + c.type;
    range("mm_comm", name, thread, c.begin_ns, c.end_ns, args);
    // Else an operator that waits, as the one that adds up a gradient and shares it out, would look
    // as if it computed all the time. Named as what PyTorch's own threads of Gloo do.
    if (apart && c.wait_ns > kShownWait)
      range("user_annotation", "gloo:wait for " + name, recorded.thread, c.wait_begin_ns,
            c.wait_begin_ns + c.wait_ns, "");
  }

  void name_thread(int64_t thread, const std::string& name, int64_t order) {
    fmt::format_to(std::back_inserter(text_),
                   "\n  {{\n    \"ph\": \"M\", \"name\": \"thread_name\", \"ts\": 0.000, \"pid\": "
                   "{0}, \"tid\": {1},\n    \"args\": {{\"name\": {2}}}\n  }},\n  {{\n    \"ph\": "
                   "\"M\", \"name\": \"thread_sort_index\", \"ts\": 0.000, \"pid\": {0}, \"tid\": "
                   "{1},\n    \"args\": {{\"sort_index\": {3}}}\n  }},",
                   pid_, thread, json_text(name), order);
  }

  std::string finish() {
    for (const auto& [name, lanes] : lanes_)
      for (const Lane& lane : lanes)
        name_thread(lane.thread, "communication: " + name, lane.thread);
    return std::move(text_);
  }

 private:
  struct Lane {
    int64_t thread = 0, free_ns = 0;
  };

  /// The first lane of this name that is free by then: on one lane viewers want ranges that lie
  /// within each other or apart. Calls come by their begin.
  int64_t lane(const std::string& name, const CommRecord& call) {
    auto& lanes = lanes_[name];
    auto at =
        std::ranges::find_if(lanes, [&](const Lane& l) { return l.free_ns <= call.begin_ns; });
    if (at == lanes.end()) at = lanes.insert(at, {kFirstLane + num_lanes_++, 0});
    at->free_ns = std::max(call.begin_ns, call.end_ns);
    return at->thread;
  }

  int64_t base_ns_, pid_;
  int64_t num_lanes_ = 0;
  std::map<std::string, std::vector<Lane>> lanes_;
  std::string text_;
};

}  // namespace

std::string trace_time(int64_t ns, int64_t base_ns) {
  const int64_t since = std::max<int64_t>(ns - base_ns, 0);
  return fmt::format("{}.{:03}", since / 1000, since % 1000);
}

std::string own_events(const Records& records, const std::vector<NodeRun>& nodes, int64_t base_ns,
                       int64_t pid) {
  Writer writer(base_ns, pid);
  for (const auto& scope : records.scopes)
    writer.range("user_annotation", scope.name, scope.thread, scope.begin_ns, scope.end_ns, "");
  for (const auto& scope : backward_modules(records.modules, nodes))
    writer.range("module", scope.name, scope.thread, scope.begin_ns, scope.end_ns,
                 "\"Pass\": \"backward\"");
  std::vector<const RecordedCall*> calls;
  for (const auto& call : records.calls) calls.push_back(&call);
  std::ranges::stable_sort(calls, {}, [](const RecordedCall* c) { return c->call.begin_ns; });
  for (const auto* call : calls) writer.call(*call);
  return writer.finish();
}

}  // namespace triptych
