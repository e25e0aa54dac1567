#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <fstream>
#include <map>
#include <set>

#include "base/error.h"
#include "insight/flame.h"
#include "insight/flops.h"
#include "insight/queries.h"
#include "insight/timeline.h"
#include "insight/trace_tree.h"
#include "loaded.h"

namespace triptych::insight {
namespace {

using testing::HasSubstr;

// ---- timeline

struct TileRow {
  uint32_t depth;
  std::vector<double> start, dur;
  std::vector<uint32_t> name, event, count;
};
struct TileBlock {
  uint32_t track;
  std::vector<TileRow> rows;
};
std::vector<TileBlock> parse_tiles(const std::string& bytes) {
  size_t at = 0;
  const auto u32 = [&] {
    uint32_t v;
    std::memcpy(&v, bytes.data() + at, 4);
    at += 4;
    return v;
  };
  EXPECT_EQ(u32(), 0x454C4954u);
  std::vector<TileBlock> blocks(u32());
  for (auto& block : blocks) {
    block.track = u32();
    u32(), u32();
    block.rows.resize(u32());
    for (auto& row : block.rows) {
      row.depth = u32();
      const size_t n = u32();
      if (at % 8) u32();
      const auto column = [&](auto& out) {
        out.resize(n);
        std::memcpy(out.data(), bytes.data() + at, n * sizeof out[0]);
        at += n * sizeof out[0];
      };
      column(row.start), column(row.dur), column(row.name), column(row.event), column(row.count);
      std::vector<float> covered;
      column(covered);
      for (const float c : covered) EXPECT_TRUE(c >= 0 && c <= 1);
    }
  }
  EXPECT_EQ(at, bytes.size());
  return blocks;
}

TEST(Tiles, HoldEveryEventAtEveryLevel) {
  const Loaded l({.data = 1, .steps = 8, .layers = 8, .micro_batches = 8});
  const auto& t = l.run->files()[0].trace;
  for (uint32_t k = 0; k < t.tracks().size(); ++k) {
    const Track& track = t.tracks()[k];
    if (track.num_events == 0) continue;
    for (const uint32_t level : {6u, 10u, 14u, 18u, 22u, 26u}) {
      const int64_t width = int64_t{512} << level;
      const int64_t first = l.run->aligned(0, t.begin_ns()) / width - 1,
                    last = l.run->aligned(0, t.end_ns()) / width;
      if (last - first > 3000) continue;
      TileRequest request{.level = level, .tracks = {track_id(0, k)}};
      for (int64_t tile = first; tile <= last; ++tile) request.tiles.push_back(tile);
      uint64_t events = 0, slices = 0;
      std::set<uint32_t> seen;
      for (const auto& block : parse_tiles(tiles_binary(*l.run, request)))
        for (const auto& row : block.rows)
          for (size_t i = 0; i < row.start.size(); ++i) {
            ++slices;
            if (row.count[i] > 1)
              events += row.count[i];
            else if (seen.insert(row.event[i]).second)
              ++events;  // a long one appears in several tiles
          }
      // Events at a bucket's edge may stand for one more: within a per cent.
      EXPECT_NEAR(static_cast<double>(events), track.num_events, 2 + 0.01 * track.num_events)
          << "track " << k << " level " << level;
      const auto buckets = static_cast<uint64_t>(last - first + 1) * 512;
      EXPECT_LE(slices,
                std::min<uint64_t>(2 * buckets * track.num_rows, 2 * track.num_events + buckets))
          << level;
    }
  }
}

TEST(Timeline, ARangeAddsUpWhereEventsCrossEachOther) {
  // An annotation that ends when its message does, long after the operator that it began in.
  const auto run = run_of({R"({"traceEvents": [
      {"ph": "X", "cat": "cpu_op", "name": "step", "pid": 1, "tid": 1, "ts": 0, "dur": 100},
      {"ph": "X", "cat": "cpu_op", "name": "send", "pid": 1, "tid": 1, "ts": 10, "dur": 20},
      {"ph": "X", "cat": "user_annotation", "name": "gloo:send", "pid": 1, "tid": 1, "ts": 20, "dur": 60},
      {"ph": "X", "cat": "cpu_op", "name": "mm", "pid": 1, "tid": 1, "ts": 50, "dur": 40}]})"});
  const auto range = range_json(*run, std::vector<uint32_t>{0}, -1000, 1000000);
  std::map<std::string, int64_t> self;
  int64_t sum = 0;
  for (const auto& row : range["rows"])
    sum += self[row["name"].get<std::string>()] = row["self_ns"].get<int64_t>();
  EXPECT_EQ(range["busy"][0]["busy_ns"], 100000);
  EXPECT_EQ(sum, 100000) << range;
}

TEST(Timeline, TracksSlicesRangesSearch) {
  const Loaded l({.data = 2, .steps = 2, .layers = 2});
  const auto tracks = tracks_json(*l.run);
  ASSERT_EQ(tracks["ranks"].size(), 2u);
  std::vector<uint32_t> ids;
  for (const auto& process : tracks["ranks"][0]["processes"])
    for (const auto& track : process["tracks"]) {
      EXPECT_TRUE(track["count"].get<int64_t>() > 0);
      if (track["kind"] != "counter") ids.push_back(track["id"].get<uint32_t>());
    }
  const int64_t begin = tracks["begin_ns"].get<int64_t>(), end = tracks["end_ns"].get<int64_t>();
  // A selection adds up: self times of all rows are the busy times of the tracks, whole or cut
  // anywhere.
  for (const auto& [t0, t1] :
       {std::pair(begin, end), std::pair(begin + (end - begin) / 3, begin + (end - begin) / 2)}) {
    const auto range = range_json(*l.run, ids, t0, t1);
    int64_t self = 0, busy = 0;
    for (const auto& row : range["rows"]) self += row["self_ns"].get<int64_t>();
    for (const auto& track : range["busy"]) busy += track["busy_ns"].get<int64_t>();
    EXPECT_EQ(self, busy);
    EXPECT_GT(busy, 0);
  }
  const auto found = search_json(*l.run, "addmm", 0, 5, "");
  EXPECT_EQ(found["matches"].size(), 5u);
  const auto next = search_json(*l.run, "addmm", 0, 5, found["next"].get<std::string>());
  EXPECT_GT(next["matches"][0]["id"], found["matches"][4]["id"]);
  EXPECT_EQ(search_json(*l.run, "/^aten::(addmm|mm)$/", 0, 1000, "")["total"],
            search_json(*l.run, "/ATEN::A?D?D?MM$/", 0, 1, "")["total"]);
  EXPECT_EQ(search_json(*l.run, "correlation:1", 0, 10, "").contains("incomplete"), false);
  EXPECT_THROW(search_json(*l.run, "/(/", 0, 10, ""), Error);
  const auto slice = slice_json(*l.run, found["matches"][0]["id"].get<uint64_t>());
  EXPECT_EQ(slice["name"], "aten::addmm");
  EXPECT_EQ(slice["module"], "model.layers.0");
  EXPECT_EQ(slice["step"], 10);
  EXPECT_FALSE(slice["args"].empty());
  EXPECT_FALSE(slice["kernels"].empty());
  EXPECT_EQ(slice["next"], found["matches"][1]["id"]);
  const auto kernel = slice_json(*l.run, slice["kernels"][0]["id"].get<uint64_t>());
  EXPECT_EQ(kernel["op"]["name"], "aten::addmm");
  EXPECT_THROW(slice_json(*l.run, uint64_t{77} << 32), Error);
  EXPECT_FALSE(flows_json(*l.run, ids, begin, end, 50)["flows"].empty());
  const auto counters = counters_json(*l.run, track_id(0, 0xffff), begin, end, 100);
  EXPECT_EQ(counters["max"].size(), 100u);
}

TEST(Timeline, TooManyFlowsAreThinnedEvenly) {
  const Loaded l({.data = 2, .steps = 2, .layers = 2});
  const auto tracks = tracks_json(*l.run);
  std::vector<uint32_t> ids;
  for (const auto& rank : tracks["ranks"])
    for (const auto& process : rank["processes"])
      for (const auto& track : process["tracks"])
        if (track["kind"] != "counter") ids.push_back(track["id"].get<uint32_t>());
  const int64_t begin = tracks["begin_ns"].get<int64_t>(), end = tracks["end_ns"].get<int64_t>();
  const auto all = flows_json(*l.run, ids, begin, end, 100000);
  const auto total = all["total"].get<size_t>();
  ASSERT_GT(total, 100u);
  EXPECT_EQ(all["flows"].size(), total);
  EXPECT_EQ(all["truncated"], false);
  const auto few = flows_json(*l.run, ids, begin, end, 50);
  ASSERT_EQ(few["flows"].size(), 50u);
  EXPECT_EQ(few["total"], total);
  EXPECT_EQ(few["truncated"], true);
  // Each stands for as many as its neighbour.
  for (size_t i = 0; i < 50; ++i) {
    const auto& flow = few["flows"][i];
    EXPECT_EQ(flow, all["flows"][i * total / 50]) << i;
    // An arrow leads from row to row, not from lane to lane.
    EXPECT_EQ(flow["from_depth"], slice_json(*l.run, flow["from"].get<uint64_t>())["depth"]);
    EXPECT_EQ(flow["to_depth"], slice_json(*l.run, flow["to"].get<uint64_t>())["depth"]);
  }
}

/// The generator writes what Kineto does: a mark "Record Window End" in a process without a name.
TEST(Timeline, MarksOfTheCollectionAreNoLanes) {
  const Loaded l({.data = 1, .steps = 2, .layers = 2});
  const auto document = tracks_json(*l.run);
  for (const auto& process : document["ranks"][0]["processes"])
    EXPECT_THAT(process["name"].get<std::string>(), testing::Not(HasSubstr("process -")))
        << process;
}

// ---- what a run is made of

/// As torch_npu leaves them: a folder a rank, analysed one after another, here three minutes apart.
TEST(RunFiles, RanksOfTorchNpuAreOneCollection) {
  Scratch folder;
  for (const int rank : {0, 1}) {
    const auto out = folder.path() / ("worker_" + std::to_string(4000 + rank) + "_2026112510143" +
                                      std::to_string(rank) + "_ascend_pt");
    fs::create_directories(out / "ASCEND_PROFILER_OUTPUT");
    std::ofstream(out / ("profiler_info_" + std::to_string(rank) + ".json")) << "{}";
    const auto trace = out / "ASCEND_PROFILER_OUTPUT/trace_view.json";
    std::ofstream(trace) << R"([{"ph":"X","name":"ProfilerStep#1","pid":10,"tid":1,)"
                         << R"("ts":"1764000000000000.000","dur":900}])";
    fs::last_write_time(trace, fs::last_write_time(trace) + std::chrono::minutes(3 * rank));
  }
  const auto run = load_run(folder.path());
  EXPECT_EQ(run->ranks(), (std::vector<int64_t>{0, 1}));
  EXPECT_EQ(run->spans(), (std::vector<int64_t>{0}));
}

// ---- flame

/// Every path's time is its own and that of what it calls; roots add up to the whole.
TEST(Flame, AddsUp) {
  const Loaded l({.data = 2, .steps = 3, .layers = 2});
  for (const bool modules : {false, true}) {
    const auto document = flame_json(*l.run, {0, 1}, {}, {.modules = modules, .limit = 100000});
    const auto& nodes = document["nodes"];
    ASSERT_GT(nodes.size(), 1u);
    EXPECT_EQ(document["left_out"], 0);
    std::vector<int64_t> inside(nodes.size());
    int64_t roots = 0;
    for (size_t i = nodes.size(); i-- > 0;) {
      const auto total = nodes[i]["total_ns"].get<int64_t>();
      EXPECT_EQ(nodes[i]["self_ns"].get<int64_t>(), total - inside[i]) << nodes[i];
      const auto parent = nodes[i]["parent"].get<int64_t>();
      ASSERT_LT(parent, static_cast<int64_t>(i));
      if (parent < 0)
        roots += total;
      else
        inside[static_cast<size_t>(parent)] += total;
    }
    EXPECT_EQ(document["total_ns"], roots);
  }
}

/// On the device counts what was launched inside, also by calls further in.
TEST(Flame, SumsWhatRanOnTheDevice) {
  const auto run = run_of({R"([
    {"ph":"X","cat":"cpu_op","name":"outer","pid":1,"tid":1,"ts":0,"dur":100},
    {"ph":"X","cat":"cpu_op","name":"inner","pid":1,"tid":1,"ts":10,"dur":20},
    {"ph":"X","cat":"cuda_runtime","name":"launch","pid":1,"tid":1,"ts":12,"dur":5,"args":{"correlation":1}},
    {"ph":"X","cat":"cuda_runtime","name":"launch","pid":1,"tid":1,"ts":60,"dur":5,"args":{"correlation":2}},
    {"ph":"X","cat":"kernel","name":"a","pid":0,"tid":7,"ts":20,"dur":300,"args":{"correlation":1,"stream":7}},
    {"ph":"X","cat":"kernel","name":"b","pid":0,"tid":7,"ts":400,"dur":50,"args":{"correlation":2,"stream":7}},
    {"ph":"X","cat":"kernel","name":"lost","pid":0,"tid":7,"ts":500,"dur":7,"args":{"correlation":9,"stream":7}}])"});
  std::map<std::string, int64_t> device;  // by name and depth
  const auto by_hand = flame_json(*run, {0}, {}, {});
  for (const auto& node : by_hand["nodes"])
    device[node["name"].get<std::string>() + " " + std::to_string(node["depth"].get<int>())] =
        node["device_ns"].get<int64_t>();
  EXPECT_EQ(
      device,
      (std::map<std::string, int64_t>{
          {"outer 0", 350000}, {"inner 1", 300000}, {"launch 2", 300000}, {"launch 1", 50000}}));
  // In a whole run: every kernel that was launched stands once below the roots.
  const Loaded l({.data = 1, .steps = 2, .layers = 2});
  const auto& t = l.run->files()[0].trace;
  int64_t launched = 0, roots = 0;
  for (EventId e = 0; e < t.num_events(); ++e)
    if (t.tracks()[t.track_of(e)].is_device() && t.linked(e) != kNone && t.work(e) != Work::kNone)
      launched += t.dur(e);
  const auto whole = flame_json(*l.run, {0}, {}, {.limit = 100000});
  for (const auto& node : whole["nodes"])
    if (node["parent"] == -1) roots += node["device_ns"].get<int64_t>();
  EXPECT_GT(launched, 0);
  EXPECT_EQ(roots, launched);
}

TEST(Flame, FollowsStepsRangesAndTracks) {
  const Loaded l({.data = 1, .steps = 3, .layers = 2});
  const auto& t = l.run->files()[0].trace;
  const Step& step = t.steps()[1];
  const auto time_of_step = [&](const Json& document) -> int64_t {
    for (const auto& node : document["nodes"])
      if (node["name"] == "ProfilerStep") return node["total_ns"].get<int64_t>();
    return -1;
  };
  const auto whole = flame_json(*l.run, {0}, {}, {});
  int64_t all = 0;
  for (const auto& s : t.steps()) all += s.duration_ns();
  EXPECT_EQ(time_of_step(whole), all);  // the numbers of the steps are left out of the name
  EXPECT_EQ(time_of_step(flame_json(*l.run, {0}, step.number, {})), step.duration_ns());
  const int64_t from = l.run->aligned(0, step.begin_ns) + 1000;
  EXPECT_EQ(time_of_step(flame_json(*l.run, {0}, {}, {.range = std::pair(from, from + 5000)})),
            5000);
  const auto only = flame_json(*l.run, {0}, {}, {.tracks = {track_id(0, step.track)}});
  EXPECT_EQ(time_of_step(only), all);
  // Backward runs on a thread of its own, which was not asked for.
  const auto has = [](const Json& document, const char* name) {
    return std::ranges::any_of(document["nodes"], [&](const auto& n) { return n["name"] == name; });
  };
  EXPECT_TRUE(has(whole, "aten::addmm_backward"));
  EXPECT_FALSE(has(only, "aten::addmm_backward"));
  EXPECT_TRUE(has(only, "aten::addmm"));
  EXPECT_TRUE(flame_json(*l.run, {0}, 99, {}).contains("empty"));
  const auto few = flame_json(*l.run, {0}, {}, {.limit = 3});
  EXPECT_EQ(few["nodes"].size(), 3u);
  EXPECT_GT(few["left_out"], 0);
}

// ---- shares of peak

TEST(Peaks, SharesOfOperatorsAndKernels) {
  const Loaded l({.data = 1, .steps = 2, .layers = 2});
  const auto peaks = peaks_of(*l.run);
  ASSERT_TRUE(peaks.measured && peaks.nominal);
  EXPECT_EQ(peaks.nominal->flops_per_s, 312e12);
  const Queries queries(l.run);
  const auto ops = queries.ops({.limit = 1000}), kernels = queries.kernels({.limit = 1000});
  EXPECT_EQ(ops["nominal_peak"]["flops_per_s"], 312e12);
  double of_ops = 0, of_kernels = 0;
  for (const auto& row : ops["rows"]) of_ops += row["flops"].get<double>();
  for (const auto& row : kernels["rows"]) {
    of_kernels += row["flops"].get<double>();
    if (row["flops"].get<double>() == 0) continue;
    EXPECT_DOUBLE_EQ(row["of_nominal_peak"].get<double>(),
                     row["flops"].get<double>() / (row["total_ns"].get<double>() * 312e3));
    EXPECT_DOUBLE_EQ(row["of_peak"].get<double>(), row["flops"].get<double>() /
                                                       row["total_ns"].get<double>() * 1e9 /
                                                       peaks.measured->flops_per_s);
  }
  EXPECT_GT(of_ops, 0);
  EXPECT_NEAR(of_kernels / of_ops, 1, 1e-12);  // sums of doubles in another order
  // Model FLOPs over time and peak, in every row of the summary.
  const auto row = queries.summary({}, "step")["rows"][0];
  const auto flops = l.run->model_info()["model_flop_per_step"].get<double>();
  EXPECT_DOUBLE_EQ(row["mfu"].get<double>(),
                   flops / (row["total_ns"].get<double>() / 1e9 * peaks.measured->flops_per_s));
}

TEST(Peaks, ToldByTheUserOrUnknown) {
  Scratch folder;
  std::ofstream(folder.path() / "rank0.trace.json") << R"({"traceEvents":[
    {"ph":"X","cat":"cpu_op","name":"aten::mm","pid":1,"tid":1,"ts":20,"dur":1,"args":{"Input Dims":[[1000,1000],[1000,1000]]}}]})";
  const auto run = load_run(folder.path());
  EXPECT_FALSE(Queries(run).ops({})["rows"][0].contains("of_peak"));
  run->set_peak_flops_per_s(4e15);
  EXPECT_DOUBLE_EQ(Queries(run).ops({})["rows"][0]["of_peak"].get<double>(), 0.5);
  EXPECT_EQ(Queries(run).ops({})["peak"]["source"], "told by --peak");
}

}  // namespace
}  // namespace triptych::insight
