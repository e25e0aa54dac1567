#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <random>
#include <set>

#include "base/error.h"
#include "cli/command.h"
#include "cli/commands.h"
#include "insight/comm_calls.h"
#include "insight/communication.h"
#include "insight/critical_path.h"
#include "insight/hta.h"
#include "insight/idle.h"
#include "insight/intervals.h"
#include "insight/operators.h"
#include "insight/pickle.h"
#include "insight/pipeline.h"
#include "insight/queries.h"
#include "insight/report.h"
#include "insight/snapshot_curve.h"
#include "insight/statistics.h"
#include "insight/step_times.h"
#include "insight/timeline.h"
#include "insight/trace_tree.h"
#include "insight/work_class.h"
#include "synthetic.h"

namespace triptych::insight {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class Scratch {
 public:
  Scratch() {
    std::string pattern = (fs::temp_directory_path() / "insight_XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~Scratch() { fs::remove_all(path_); }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

std::shared_ptr<insight::Run> load_run(const fs::path& where) {
  auto run = std::make_shared<insight::Run>(insight::Run::find({where}));
  run->load(2, nullptr, false);
  return run;
}

/// A made-up run, written, found and loaded.
struct Loaded {
  Scratch folder;
  std::shared_ptr<insight::Run> run;
  explicit Loaded(const SyntheticOptions& options) {
    write_synthetic_run(options, folder.path());
    run = load_run(folder.path());
  }
};

// ---- unions

TEST(Intervals, AgreeWithCountingEveryNanosecond) {
  std::mt19937 random(7);
  for (int round = 0; round < 300; ++round) {
    const auto make = [&] {
      std::vector<Interval> list(random() % 12);
      for (auto& i : list) i.begin = random() % 100, i.end = i.begin + random() % 20;
      return list;
    };
    const auto a = make(), b = make();
    std::vector<bool> in_a(140), in_b(140);
    for (const auto& i : a)
      for (auto t = i.begin; t < i.end; ++t) in_a[static_cast<size_t>(t)] = true;
    for (const auto& i : b)
      for (auto t = i.begin; t < i.end; ++t) in_b[static_cast<size_t>(t)] = true;
    int64_t both = 0, only_a = 0, length = 0, clipped = 0;
    for (size_t t = 0; t < 140; ++t) {
      both += in_a[t] && in_b[t], only_a += in_a[t] && !in_b[t], length += in_a[t];
      clipped += in_a[t] && t >= 30 && t < 70;
    }
    const auto A = merge(a), B = merge(b);
    EXPECT_EQ(union_length(A), length);
    EXPECT_EQ(union_length(intersect(A, B)), both);
    EXPECT_EQ(union_length(subtract(A, B)), only_a);
    EXPECT_EQ(union_length(clip(A, 30, 70)), clipped);
    for (size_t i = 1; i < A.size(); ++i)
      EXPECT_GT(A[i].begin, A[i - 1].end);  // touching ones are one
  }
}

// ---- step times

TEST(StepTimes, ByHand) {
  // Window [0, 100] us; compute [10, 40] and [60, 80]; communication [30, 70]; a copy [85, 90].
  const auto event = [](const char* cat, const char* name, int tid, int ts, int dur) {
    return std::string(R"({"ph":"X","cat":")") + cat + R"(","name":")" + name +
           R"(","pid":0,"tid":)" + std::to_string(tid) + R"(,"ts":)" + std::to_string(ts) +
           R"(,"dur":)" + std::to_string(dur) + R"(,"args":{"stream":7}},)";
  };
  const auto t = read_trace_text(
      "[" + event("kernel", "gemm", 7, 10, 30) + event("kernel", "gemm", 7, 60, 20) +
          event("kernel", "ncclDevKernel_AllReduce", 20, 30, 40) +
          event("gpu_memcpy", "Memcpy HtoD (Pinned -> Device)", 21, 85, 5) + "]",
      "t.json");
  const auto s = split_window(lanes_of(t), 0, 100000);
  EXPECT_EQ(s.compute, 50000);
  EXPECT_EQ(s.communication, 40000);
  EXPECT_EQ(s.overlapped, 20000);
  EXPECT_EQ(s.exposed, 20000);
  EXPECT_EQ(s.compute_only, 30000);
  EXPECT_EQ(s.preparing, 10000);
  EXPECT_EQ(s.free, 20000);
  EXPECT_EQ(s.memory_copy, 5000);
  EXPECT_EQ(s.total, s.compute_only + s.overlapped + s.exposed + s.free + s.preparing);
}

TEST(StepTimes, OnTheCpuTheInnermostRecordCounts) {
  // An operator [0, 100] that waits in a collective [20, 70]: it computes for 50. The engine's
  // wrapper around it counts as nothing.
  const auto t = read_trace_text(R"([
    {"ph":"X","cat":"user_annotation","name":"ProfilerStep#0","pid":1,"tid":1,"ts":0,"dur":200},
    {"ph":"X","cat":"cpu_op","name":"autograd::engine::evaluate_function: X","pid":1,"tid":1,"ts":0,"dur":150},
    {"ph":"X","cat":"cpu_op","name":"aten::mm","pid":1,"tid":1,"ts":0,"dur":100},
    {"ph":"X","cat":"mm_comm","name":"dp allreduce","pid":1,"tid":1,"ts":20,"dur":50,"args":{"Collective name":"allreduce"}},
    {"ph":"X","cat":"cpu_op","name":"aten::add","pid":1,"tid":99,"ts":150,"dur":20}])",
                                 "t.json");
  const auto s = split_window(lanes_of(t), 0, 200000);
  EXPECT_EQ(s.compute, 50000);
  EXPECT_EQ(s.communication, 50000);
  EXPECT_EQ(s.overlapped, 0);
  EXPECT_EQ(s.free, 100000);  // the add on a thread that is not the step's is a loader's
}

TEST(StepTimes, AlwaysAddUpExactly) {
  for (const bool device : {true, false})
    for (const bool overlap : {true, false}) {
      const Loaded l({.data = 2, .pipeline = 2, .device = device, .overlap = overlap, .seed = 11});
      const auto steps = step_times(*l.run);
      ASSERT_EQ(steps.size(), 16u);
      for (const auto& s : steps) {
        EXPECT_EQ(s.total, s.compute_only + s.overlapped + s.exposed + s.free + s.preparing);
        EXPECT_EQ(s.compute, s.compute_only + s.overlapped);
        EXPECT_EQ(s.communication, s.exposed + s.overlapped);
        EXPECT_GE(s.free, 0);
        EXPECT_GE(s.memory_copy + s.sync, 0);
        EXPECT_LE(s.memory_copy + s.sync, s.free);
        EXPECT_GT(s.compute, 0);
      }
    }
}

// ---- communication

TEST(Communication, MatchesAndMeasures) {
  const Loaded l({.data = 4, .steps = 3, .layers = 2, .device = false, .overlap = false});
  const auto calls = match_calls(*l.run);
  EXPECT_EQ(calls.source, "mm_comm");
  EXPECT_TRUE(calls.mismatches.empty());
  ASSERT_EQ(calls.calls.size(), 6u);  // two layers, three steps
  for (const auto& call : calls.calls) {
    EXPECT_EQ(call.type, "all_reduce");
    EXPECT_EQ(call.parts.size(), 4u);
    EXPECT_TRUE(call.complete);
    EXPECT_EQ(call.bytes, 4 << 20);
    // The simulation's ring: 2 * 3/4 of the bytes at 10 bytes a ns, and 5 us.
    EXPECT_NEAR(static_cast<double>(call.transit_ns()), 2 * 0.75 * (4 << 20) / 10 + 5000, 2);
    for (const auto& part : call.parts) EXPECT_GE(call.wait_ns(part), 0);
  }
  const auto groups = comm_groups_json(calls);
  ASSERT_EQ(groups["groups"].size(), 1u);
  EXPECT_EQ(groups["groups"][0]["ranks"], (std::vector<int64_t>{0, 1, 2, 3}));
  EXPECT_NEAR(groups["groups"][0]["bus_bandwidth"].get<double>(), 1e10, 1e8);
}

TEST(Communication, ReportsMismatchesInsteadOfGuessing) {
  Scratch folder;
  const auto rank = [&](int r, const char* name, int elements) {
    std::ofstream(folder.path() /
                  ("rank-" + std::to_string(r) + "_1.1764000000000000000.pt.trace.json"))
        << R"({"distributedInfo":{"rank":)" << r
        << R"(},"traceEvents":[{"ph":"X","cat":"mm_comm","name":"x","pid":1,"tid":1,"ts":1,"dur":2,
        "args":{"Collective name":")"
        << name << R"(","In msg nelems":)" << elements
        << R"(,"dtype":"Float","Process Group Name":"g","Process Group Ranks":"[0, 1]","Group size":2,"Seq":0}}]})";
  };
  rank(0, "allreduce", 8);
  rank(1, "allreduce", 9);
  const auto run = load_run(folder.path());
  EXPECT_THAT(match_calls(*run).mismatches, testing::ElementsAre(HasSubstr("32 bytes on rank 0")));
}

TEST(Communication, TypesAndFactors) {
  EXPECT_EQ(collective_type("c10d::allreduce_"), "all_reduce");
  EXPECT_EQ(collective_type("_allgather_base"), "all_gather");
  EXPECT_EQ(collective_type("_reduce_scatter_base"), "reduce_scatter");
  EXPECT_EQ(collective_type("all_to_allv"), "all_to_all");
  EXPECT_EQ(collective_type("ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevComm*)"),
            "all_reduce");
  EXPECT_EQ(collective_type("c10d::recv_"), "recv");
  EXPECT_DOUBLE_EQ(bus_factor("all_reduce", 4), 1.5);
  EXPECT_DOUBLE_EQ(bus_factor("all_gather", 4), 0.75);
  EXPECT_DOUBLE_EQ(bus_factor("broadcast", 4), 1);
  EXPECT_EQ(parse_ranks("[0, 3, 12]"), (std::vector<int64_t>{0, 3, 12}));
  EXPECT_TRUE(parse_ranks("[0, 1, ..., 63]").empty());
}

// ---- faults: named, and nothing on the clean twin

struct Fault {
  const char* name;
  SyntheticOptions options;
  std::string kind;  ///< "" none
  int64_t rank = -1, src = -1, dst = -1;
};
std::vector<Fault> faults() {
  std::vector<Fault> out;
  for (const bool device : {true, false}) {
    const SyntheticOptions data{.data = 8, .steps = 6, .layers = 3, .device = device};
    const SyntheticOptions pipe{
        .data = 2, .pipeline = 4, .steps = 6, .layers = 3, .device = device};
    const auto with = [](SyntheticOptions o, auto&& change) {
      change(o);
      return o;
    };
    out.push_back({"clean data", data, ""});
    out.push_back({"clean pipeline", pipe, ""});
    out.push_back({"clean on two hosts", with(data, [](auto& o) { o.ranks_per_host = 4; }), ""});
    out.push_back({"slow rank", with(data, [](auto& o) { o.slow_rank = 5; }), "slow_rank", 5});
    out.push_back(
        {"slow rank of a pipeline", with(pipe, [](auto& o) { o.slow_rank = 3; }), "slow_rank", 3});
    out.push_back({"slow link",
                   with(pipe, [](auto& o) { o.slow_link_from = 2, o.slow_link_to = 4; }),
                   "slow_link", -1, 2, 4});
    out.push_back({"slow clock",
                   with(data, [](auto& o) { o.ranks_per_host = 4, o.skewed_host = 1; }),
                   "clock_skew", 4});
    out.push_back(
        {"stalled loader", with(data, [](auto& o) { o.stalled_rank = 6; }), "loader_stall", 6});
  }
  return out;
}

class Findings : public testing::TestWithParam<Fault> {};
TEST_P(Findings, NameTheFaultAndNothingElse) {
  const auto& fault = GetParam();
  const Loaded l(fault.options);
  const auto found = Queries(l.run).findings({})["findings"];
  if (fault.kind.empty()) {
    EXPECT_TRUE(found.empty()) << found.dump(2);
    return;
  }
  ASSERT_EQ(found.size(), 1u) << found.dump(2);
  EXPECT_EQ(found[0]["kind"], fault.kind);
  if (fault.rank >= 0) {
    EXPECT_EQ(found[0]["rank"], fault.rank);
  }
  if (fault.src >= 0) {
    EXPECT_EQ(found[0]["src"], fault.src);
  }
  if (fault.dst >= 0) {
    EXPECT_EQ(found[0]["dst"], fault.dst);
  }
  EXPECT_FALSE(found[0]["words"].get<std::string>().empty());
  if (fault.kind == "clock_skew") {
    EXPECT_NEAR(found[0]["evidence"]["offset_ns"].get<double>(), -3e6, 1e4);
  }
}
INSTANTIATE_TEST_SUITE_P(Runs, Findings, testing::ValuesIn(faults()), [](const auto& info) {
  std::string name = info.param.name;
  for (char& c : name)
    if (c == ' ') c = '_';
  return name + (info.param.options.device ? "_device" : "_cpu");
});

// ---- the others

TEST(Operators, SelfTimesAddUpAndRecursionCountsOnce) {
  Scratch folder;
  std::ofstream(folder.path() / "rank0.trace.json") << R"({"traceEvents":[
    {"ph":"X","cat":"cpu_op","name":"f","pid":1,"tid":1,"ts":0,"dur":100},
    {"ph":"X","cat":"cpu_op","name":"f","pid":1,"tid":1,"ts":10,"dur":50},
    {"ph":"X","cat":"cpu_op","name":"aten::mm","pid":1,"tid":1,"ts":20,"dur":30,"args":{"Input Dims":[[2,3],[3,4]]}}]})";
  const auto run = load_run(folder.path());
  const auto rows = op_rows(*run, {.files = {0}}, GroupBy::kName);
  ASSERT_EQ(rows.size(), 2u);
  const auto& f = rows[0].name == "f" ? rows[0] : rows[1];
  const auto& mm = rows[0].name == "f" ? rows[1] : rows[0];
  EXPECT_EQ(f.calls, 2);
  EXPECT_EQ(f.total_ns, 100000);
  EXPECT_EQ(f.self_ns, 70000);
  EXPECT_EQ(mm.self_ns, 30000);
  EXPECT_EQ(mm.flops, 2 * 2 * 3 * 4);
}

TEST(Operators, DeviceTimeGoesToOpsAndModules) {
  const Loaded l({.data = 1, .steps = 2, .layers = 3});
  int64_t device = 0, kernels = 0;
  for (const auto& row : op_rows(*l.run, {.files = {0}}, GroupBy::kName))
    device += row.device_self_ns;
  for (const auto& row : kernel_rows(*l.run, {.files = {0}}, false)) kernels += row.total_ns;
  EXPECT_EQ(device, kernels);
  const auto modules = module_rows(*l.run, {.files = {0}});
  EXPECT_EQ(modules.size(), 3u);
  const auto in_layer = kernel_rows(*l.run, {.files = {0}, .module = "model.layers.1"}, false);
  int64_t layer = 0;
  for (const auto& row : in_layer) layer += row.total_ns;
  for (const auto& m : modules)
    if (m.module == "model.layers.1") {
      EXPECT_EQ(m.device_total_ns, layer);
    }
  EXPECT_GT(layer, 0);
}

TEST(Names, ClassesAndShortNames) {
  EXPECT_EQ(kernel_class("ampere_bf16_s16816gemm_bf16"), KernelClass::kGemm);
  EXPECT_EQ(kernel_class("void pytorch_flash::flash_fwd_kernel<X>()"), KernelClass::kAttention);
  EXPECT_EQ(kernel_class("ncclDevKernel_AllReduce_Sum"), KernelClass::kCommunication);
  EXPECT_EQ(device_work("Memcpy HtoD (Pinned -> Device)"), Work::kMemory);
  EXPECT_EQ(device_work("Stream Wait Event"), Work::kSync);
  EXPECT_EQ(short_name(
                "void at::native::(anonymous namespace)::k<float, std::array<int, 3>>(int, float)"),
            "at::native::(anonymous namespace)::k");
  EXPECT_EQ(short_name("aten::add"), "aten::add");
}

TEST(Pipeline, BubbleOfTheSimulationIsTheory) {
  const Loaded l({.data = 1,
                  .pipeline = 4,
                  .steps = 3,
                  .layers = 4,
                  .micro_batches = 8,
                  .device = false,
                  .message_bytes = 1 << 10,
                  .noise = 0});
  const auto p = pipeline_json(*l.run, -1, std::nullopt);
  ASSERT_EQ(p["stages"].size(), 4u);
  EXPECT_DOUBLE_EQ(p["theory"]["bubble_share"].get<double>(), 3.0 / 11);
  // The messages' latency is all that is added.
  EXPECT_NEAR(p["bubble_share"].get<double>(), 3.0 / 11, 0.01);
  for (const auto& stage : p["stages"])
    EXPECT_EQ(stage["busy_ns"].get<int64_t>() + stage["bubble_ns"].get<int64_t>(),
              p["pipe_ns"].get<int64_t>());
  EXPECT_EQ(theoretical_bubble("interleaved", 4, 8, 2), 3.0 / 19);
  EXPECT_EQ(theoretical_bubble("1f1b", 1, 8, 1), 0);
}

TEST(CriticalPath, CoversTheStepWithoutHoles) {
  for (const bool device : {true, false}) {
    const Loaded l({.data = 2, .steps = 3, .device = device});
    const auto& t = l.run->files()[0].trace;
    for (const auto& step : t.steps()) {
      const auto parts = critical_path(*l.run, 0, step.number);
      ASSERT_FALSE(parts.empty());
      EXPECT_EQ(parts.front().begin_ns, step.begin_ns);
      EXPECT_EQ(parts.back().end_ns, step.end_ns);
      for (size_t i = 1; i < parts.size(); ++i) EXPECT_EQ(parts[i].begin_ns, parts[i - 1].end_ns);
    }
    const auto document = critical_path_json(*l.run, 0, std::nullopt);
    int64_t sum = 0;
    for (const auto& [bound, ns] : document["bounds"].items()) sum += ns.get<int64_t>();
    EXPECT_EQ(sum, document["length_ns"].get<int64_t>());
    ASSERT_TRUE(document["bounds"].contains("compute_ns")) << document["bounds"];
    // The device is the bottleneck of this run: most of the path is its compute.
    EXPECT_GT(document["bounds"]["compute_ns"].get<int64_t>(),
              document["length_ns"].get<int64_t>() / 2);
  }
}

TEST(Memory, PeakListsWhatLives) {
  Scratch folder;
  const auto memory = [](int ts, int bytes, int addr, int total) {
    return R"({"ph":"i","name":"[memory]","pid":1,"tid":1,"ts":)" + std::to_string(ts) +
           R"(,"s":"t","args":{"Addr":)" + std::to_string(addr) + R"(,"Bytes":)" +
           std::to_string(bytes) + R"(,"Total Allocated":)" + std::to_string(total) +
           R"(,"Total Reserved":2000,"Device Type":0,"Device Id":-1}},)";
  };
  std::ofstream(folder.path() / "rank0.trace.json")
      << R"({"traceEvents":[{"ph":"X","cat":"user_annotation","name":"ProfilerStep#0","pid":1,"tid":1,"ts":0,"dur":100},
      {"ph":"X","cat":"cpu_op","name":"aten::mm","pid":1,"tid":1,"ts":5,"dur":20},)"
      << memory(6, 100, 1, 600) << memory(7, 300, 2, 900) << memory(20, -300, 2, 600)
      << memory(40, -500, 9, 100) << memory(50, -100, 1, 0) << "]}";
  const auto run = load_run(folder.path());
  const auto peak = Queries(run).memory_peak({});
  EXPECT_EQ(peak["allocated"], 900);
  EXPECT_EQ(peak["categories"]["before start"], 500);
  EXPECT_EQ(peak["categories"]["temporary"], 300);   // freed inside the operator that made it
  EXPECT_EQ(peak["categories"]["activation"], 100);  // lives beyond its operator, within the step
  EXPECT_EQ(peak["listed"], 900);
  const auto curve = Queries(run).memory_curve({}, 64);
  EXPECT_EQ(curve["peak"]["allocated"], 900);
  EXPECT_EQ(Queries(run).memory_allocations({})["total"], 3);
}

TEST(Idle, SaysWhatTheHostDid) {
  const auto t = read_trace_text(R"([
    {"ph":"X","cat":"cuda_runtime","name":"cudaLaunchKernel","pid":1,"tid":2,"ts":0,"dur":3,"args":{"correlation":1}},
    {"ph":"X","cat":"kernel","name":"a","pid":0,"tid":7,"ts":5,"dur":10,"args":{"correlation":1,"stream":7}},
    {"ph":"X","cat":"cuda_runtime","name":"cudaLaunchKernel","pid":1,"tid":2,"ts":4,"dur":3,"args":{"correlation":2}},
    {"ph":"X","cat":"kernel","name":"b","pid":0,"tid":7,"ts":17,"dur":10,"args":{"correlation":2,"stream":7}},
    {"ph":"X","cat":"cuda_runtime","name":"cudaLaunchKernel","pid":1,"tid":2,"ts":90,"dur":3,"args":{"correlation":3}},
    {"ph":"X","cat":"kernel","name":"c","pid":0,"tid":7,"ts":100,"dur":10,"args":{"correlation":3,"stream":7}}])",
                                 "t.json");
  const auto gaps = idle_gaps(t);
  ASSERT_EQ(gaps.size(), 2u);
  EXPECT_EQ(gaps[0].kind, IdleGap::kKernelWait);
  EXPECT_EQ(gaps[1].kind, IdleGap::kHostWait);
  EXPECT_EQ(gaps[1].end_ns - gaps[1].begin_ns, 73000);
}

TEST(Compare, NamesWhatGrew) {
  const Loaded a({.data = 1, .steps = 3}), b({.data = 1, .steps = 5, .compute_ns = 300000});
  const Queries qa(a.run), qb(b.run);
  const auto same = diff_json(qa, qa, "kernels", {}, {});
  for (const auto& row : same["rows"]) EXPECT_EQ(row["change"], "unchanged");
  const auto diff = diff_json(qa, qb, "kernels", {}, {});
  EXPECT_EQ(diff["rows"][0]["change"], "increased");
  EXPECT_NEAR(diff["total"]["b"].get<double>() / diff["total"]["a"].get<double>(), 1.5,
              0.02);  // per step, whatever their number
}

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

// ---- snapshots

TEST(Pickle, ReadsDataAndRefusesCode) {
  // {'a': [1, -2, 3.5, None, True, 'x'], 'b': (18446744073709551615,)} with protocol 4, memoised.
  static constexpr char kGood[] =
      "\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01"
      "a\x94]\x94(K\x01J\xfe\xff\xff\xffG@\x0c\x00\x00\x00\x00\x00\x00"
      "N\x88\x8c\x01x\x94"
      "e\x8c\x01"
      "b\x94\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\x00\x85\x94u.";
  const std::string good(kGood, sizeof kGood - 1);
  const auto value = read_pickle(good, "s.pickle");
  EXPECT_EQ(value["a"], Json::parse(R"([1, -2, 3.5, null, true, "x"])"));
  EXPECT_EQ(value["b"][0], 18446744073709551615ull);
  EXPECT_THAT([] { read_pickle("cos\nsystem\n(S'echo'\ntR.", "s.pickle"); },
              testing::ThrowsMessage<DataError>(
                  HasSubstr("is not plain data; nothing of this file is executed")));
  for (size_t cut = 0; cut < good.size(); ++cut)
    EXPECT_THROW(read_pickle(good.substr(0, cut), "s"), DataError) << cut;
  const std::string cycle(
      "\x80\x02]q\x00h\x00"
      "a.",
      9);
  EXPECT_THROW(read_pickle(cycle, "s"), DataError);
}

/// A snapshot by hand: 100 bytes from before, then 50 and 30 come, 100 and 30 go, 20 come.
Json snapshot_by_hand() {
  const auto frames = [](const char* layer) {
    return Json::array({{{"name", layer}, {"filename", "forward"}, {"line", 0}}});
  };
  const auto event = [&](const char* action, int64_t t, int64_t size, const char* category,
                         const char* layer) {
    return Json{{"action", action}, {"addr", size},         {"size", size},           {"stream", 0},
                {"time_us", t},     {"category", category}, {"frames", frames(layer)}};
  };
  const auto block = [&](int64_t size, const char* category, const char* layer) {
    return Json{{"address", size},        {"size", size},
                {"requested_size", size}, {"state", "active_allocated"},
                {"category", category},   {"frames", frames(layer)}};
  };
  return {
      {"segments",
       {{{"device", 0},
         {"address", 0},
         {"total_size", 70},
         {"allocated_size", 70},
         {"stream", 0},
         {"blocks", {block(50, "activation", "a"), block(20, "gradient", "b")}}}}},
      {"device_traces",
       {{event("alloc", 1000, 50, "activation", "a"), event("alloc", 1001, 30, "temporary", "b"),
         event("free_requested", 1002, 100, "parameter", "b"),
         event("free_completed", 1002, 100, "parameter", "b"),
         event("free_completed", 1003, 30, "temporary", "b"),
         event("alloc", 1004, 20, "gradient", "b")}}}};
}

TEST(Snapshot, GoesBackFromItsEndToItsPeak) {
  const auto history = snapshot_history(snapshot_by_hand(), 16);
  const auto& peak = history["peak"];
  EXPECT_EQ(peak["allocated"], 180);
  EXPECT_EQ(peak["peak_ns"], 1000);
  EXPECT_EQ(peak["categories"],
            Json::parse(R"({"activation": 50, "parameter": 100, "temporary": 30})"));
  ASSERT_EQ(peak["layers"].size(), 2u);
  EXPECT_EQ(peak["layers"][0]["module"], "b");
  EXPECT_EQ(peak["layers"][0]["bytes"], 130);
  EXPECT_EQ(peak["layers"][0]["temporary"], 30);
  EXPECT_EQ(peak["rows"][0]["count"], 1);
  std::vector<int64_t> allocated;
  for (const auto& point : history["curve"]["points"])
    allocated.push_back(point["allocated"].get<int64_t>());
  EXPECT_THAT(allocated, testing::ElementsAre(150, 180, 80, 50, 70));
  EXPECT_EQ(history["curve"]["categories"]["parameter"], Json::parse("[100, 100, 0, 0, 0]"));
  // What is not there, or is something else, is nothing.
  for (const char* text : {"{}", R"({"segments": 3, "device_traces": [[1, {"action": 2}]]})",
                           R"({"segments": [{"blocks": [{"state": "active_allocated"}]}]})"})
    EXPECT_EQ(snapshot_history(Json::parse(text), 16)["peak"]["allocated"], 0) << text;
}

// ---- a real trace

TEST(RealTrace, TwoGlooRanks) {
  const auto run = load_run(fs::path(TRIPTYCH_SOURCE_DIR) / "tests/insight/two_gloo_ranks");
  ASSERT_EQ(run->ranks(), (std::vector<int64_t>{0, 1}));
  EXPECT_EQ(run->world_size(), 2);
  const auto steps = step_times(*run);
  ASSERT_EQ(steps.size(), 6u);
  for (const auto& s : steps) {
    EXPECT_EQ(s.total, s.compute_only + s.overlapped + s.exposed + s.free + s.preparing);
    EXPECT_GT(s.compute, 0);
    EXPECT_GT(s.communication, 0);
  }
  const auto calls = match_calls(*run);
  EXPECT_EQ(calls.source, "gloo");
  EXPECT_TRUE(calls.mismatches.empty());
  int64_t reduces = 0, messages = 0, bytes = 0;
  for (const auto& call : calls.calls) {
    reduces += call.type == "all_reduce";
    messages += call.type == "send_recv";
    bytes += call.type == "all_reduce" ? call.bytes : 0;
    EXPECT_EQ(call.parts.size(), 2u);
  }
  EXPECT_EQ(reduces, 12);  // four parameters, three steps
  EXPECT_EQ(messages, 3);
  EXPECT_EQ(bytes, 3 * 4 * (32 * 64 + 64 + 64 * 8 + 8));  // all gradients in fp32
  EXPECT_GT(Queries(run).memory_peak({})["allocated"].get<int64_t>(), 0);
  EXPECT_TRUE(Queries(run).findings({})["findings"].empty());
}

// ---- the command

struct Output {
  int status;
  std::string text;
};
Output summary(std::vector<std::string> words) {
  words.insert(words.begin(), {"profile", "summary"});
  testing::internal::CaptureStdout();
  const std::vector<Command> commands = {profile_command()};
  const int status = run_command_line(commands, words);
  return {status, testing::internal::GetCapturedStdout()};
}

TEST(ProfileSummary, TextJsonCsvAndStatus) {
  Scratch folder;
  write_synthetic_run({.data = 4, .steps = 6, .slow_rank = 2}, folder.path() / "traces", true);
  std::ofstream(folder.path() / "metrics.jsonl")
      << "{\"step\": 1, \"loss\": 2.5}\n{\"step\": 2, \"loss\": \"NaN\"}\n{\"step\": 3";
  const auto where = folder.path().string();
  const auto text = summary({where});
  EXPECT_EQ(text.status, 0);
  EXPECT_THAT(text.text, HasSubstr("slow_rank: rank 2 computes"));
  for (size_t at = 0; at < text.text.size();) {
    const auto end = text.text.find('\n', at);
    EXPECT_LE(end - at, 100u) << text.text.substr(at, end - at);
    at = end + 1;
  }
  const auto json = Json::parse(summary({where, "--json"}).text);
  ASSERT_EQ(json["steps"].size(), 24u);
  for (const auto& s : json["steps"])
    EXPECT_EQ(s["total_ns"].get<int64_t>(),
              s["compute_only_ns"].get<int64_t>() + s["overlapped_ns"].get<int64_t>() +
                  s["exposed_comm_ns"].get<int64_t>() + s["free_ns"].get<int64_t>() +
                  s["preparing_ns"].get<int64_t>());
  EXPECT_EQ(json["findings"][0]["kind"], "slow_rank");
  EXPECT_EQ(json["findings"][0]["rank"], 2);
  const auto one = Json::parse(summary({where, "--json", "--rank", "1", "--step", "11"}).text);
  EXPECT_EQ(one["steps"].size(), 1u);
  EXPECT_EQ(summary({where, "--fail-if", "findings > 0"}).status, 1);
  EXPECT_EQ(summary({where, "--fail-if", "exposed_comm>0.99"}).status, 0);
  EXPECT_EQ(summary({where, "--fail-if", "nonsense>1"}).status, 2);
  const auto tables = folder.path() / "tables";
  EXPECT_EQ(summary({where, "--csv", tables.string()}).status, 0);
  for (const auto& name : table_names()) EXPECT_TRUE(fs::exists(tables / (name + ".csv"))) << name;
  std::string line;
  std::ifstream trace_time(tables / "step_trace_time.csv");
  std::getline(trace_time, line);
  EXPECT_THAT(line, HasSubstr("Step,Type,Index,Computing,Communication(Not "
                              "Overlapped),Overlapped,Communication,Free,Stage,Bubble"));
  const auto run = load_run(folder.path());
  const auto scalars = Queries(run).scalars({});
  EXPECT_EQ(scalars["values"]["loss"], Json::parse("[2.5, null]"));
  EXPECT_EQ(summary({(folder.path() / "nothing").string()}).status, 1);
}

TEST(Csv, QuotesAndDefusesFormulas) {
  const auto csv = to_csv(Json::parse(R"({"rows":[{"a":"=1+1","b":"x,\"y\""},{"a":3,"c":null}]})"));
  EXPECT_EQ(csv, "a,b,c\r\n'=1+1,\"x,\"\"y\"\"\",\r\n3,,\r\n");
}

}  // namespace
}  // namespace triptych::insight
