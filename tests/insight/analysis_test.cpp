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
#include "insight/queries.h"
#include "insight/report.h"
#include "insight/statistics.h"
#include "insight/step_times.h"
#include "insight/timeline.h"
#include "insight/trace_tree.h"
#include "insight/work_class.h"
#include "loaded.h"

namespace triptych::insight {
namespace {

using testing::HasSubstr;

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
  if (fault.kind != "clock_skew") {
    // It leads to a place on a rank that is meant: its step, its wait, a message of the link.
    ASSERT_TRUE(found[0].contains("slice")) << found[0];
    const auto place = slice_json(*l.run, found[0]["slice"].get<uint64_t>());
    EXPECT_THAT(place["rank"].get<int>(), testing::AnyOf(fault.rank, fault.src, fault.dst));
  }
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
    // If a class took half as long, the step would be shorter by half of what it bounds.
    ASSERT_EQ(document["what_if"].size(), document["bounds"].size());
    for (const auto& row : document["what_if"]) {
      const auto bound = document["bounds"][row["class"].get<std::string>() + "_ns"];
      EXPECT_EQ(row["factor"], 0.5);
      EXPECT_EQ(row["length_ns"].get<int64_t>(), sum - bound.get<int64_t>() / 2) << row;
    }
    ASSERT_TRUE(document["bounds"].contains("compute_ns")) << document["bounds"];
    // The device is the bottleneck of this run: most of the path is its compute.
    EXPECT_GT(document["bounds"]["compute_ns"].get<int64_t>(),
              document["length_ns"].get<int64_t>() / 2);
  }
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

}  // namespace
}  // namespace triptych::insight
