// One collection in this process: what Kineto and our recorder make of a small model, and what
// becomes of the file when it cannot be written.

#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sum.h>
#include <gmock/gmock.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <thread>

#include "base/error.h"
#include "base/files.h"
#include "insight/gzip.h"
#include "insight/queries.h"
#include "insight/run.h"
#include "profile/kineto_session.h"
#include "profile/recorder.h"
#include "profile/trace_writer.h"
#include "support/scratch.h"

namespace triptych {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

class Collection : public testing::Test {
 protected:
  /// Two layers, one call of a group, forward and backward, and a scope on another thread.
  static TraceParts collect(int64_t level = 1) {
    CollectionSettings settings;
    settings.level = level;
    KinetoSession::prepare(settings, c10::DeviceType::CPU);
    KinetoSession::start(settings, c10::DeviceType::CPU);
    Recorder::instance().begin(level, false);
    {
      const TraceScope step("ProfilerStep#", "7");
      auto weight = at::ones({64, 64});
      weight.set_requires_grad(true);
      auto x = at::ones({64, 64});
      for (const char* name : {"layers.0", "layers.1"}) {
        const TraceScope scope(kModulePrefix, name);
        x = at::mm(x, weight);
      }
      x.sum().backward();
      std::thread([] { const TraceScope scope("decode"); }).join();
      const auto now = trace_time_ns();
      trace_sink()->record({.type = "allreduce",
                            .group = "data",
                            .tag = "dp",
                            .label = "bucket \"3\"",
                            .dtype = "Float",
                            .members = {0, 1},
                            .in_elements = 10,
                            .out_elements = 10,
                            .bytes = 40,
                            .sequence = 5,
                            .begin_ns = now - 2000,
                            .end_ns = now,
                            .wait_ns = 1500});
    }
    TraceParts parts;
    parts.records = Recorder::instance().end();
    parts.collected = KinetoSession::stop(c10::DeviceType::CPU);
    parts.header = {{"distributedInfo", {{"rank", 3}}}, {"mm", {{"host", "h"}}}};
    return parts;
  }

  std::vector<std::string> names() const {
    std::vector<std::string> found;
    if (fs::exists(folder_))
      for (const auto& entry : fs::directory_iterator(folder_))
        found.push_back(entry.path().filename().string());
    return found;
  }
  Json written(const fs::path& stem) const {
    return parse_json(
        insight::gunzip(read_file(stem.string() + ".pt.trace.json.gz"), size_t{1} << 28), "trace");
  }

  const Scratch scratch_;
  const fs::path folder_ = scratch_ / "traces";  // not there yet
};

struct Event {
  double begin, end;
  Json args;
};

std::vector<Event> events(const Json& trace, const std::string& category, const std::string& name) {
  std::vector<Event> found;
  for (const auto& e : trace["traceEvents"]) {
    if (e.value("cat", "") != category || e["name"] != name) continue;
    const auto ts = e["ts"].get<double>();
    found.push_back({ts, ts + e["dur"].get<double>(), e["args"]});
  }
  return found;
}

/// Two layers' parts of one buffer from before, which go; 50 bytes that come and stay.
MemoryRecording recording_by_hand(int64_t begin_ns) {
  const MemoryTag weights{1, MemoryKind::kParameter, MemoryPhase::kLoad},
      others{2, MemoryKind::kParameter, MemoryPhase::kLoad},
      kept{1, MemoryKind::kActivation, MemoryPhase::kForward};
  MemoryRecording r;
  r.begin_ns = begin_ns;
  r.before = {{.address = 1000, .bytes = 30, .block = 1, .tag = weights},
              {.address = 1030, .bytes = 70, .block = 1, .tag = others},
              {.address = 5000, .bytes = 8, .block = 2, .tag = weights}};
  r.events = {{begin_ns + 1000, 2000, 50, 3, kept, 1},
              {begin_ns + 2000, 1000, -100, 1, weights, 1}};
  r.layers = {"", "layers.0", "layers.\"1\""};
  r.threads = {"", "main"};
  r.thread_ids = {0, 4321};
  return r;
}

TEST_F(Collection, MemoryHasItsKindAndLayer) {
  auto parts = collect();
  parts.memory = recording_by_hand(trace_time_ns());
  const auto stem = folder_ / trace_stem(0, 1, 5);
  write_trace(std::move(parts), stem);
  std::vector<Json> memory;
  const auto trace = written(stem);
  for (const auto& e : trace["traceEvents"])
    if (e["name"] == "[memory]") memory.push_back(e);
  ASSERT_THAT(memory, SizeIs(6));
  EXPECT_EQ(memory[0]["ph"], "i");
  EXPECT_EQ(memory[0]["tid"], getpid());
  EXPECT_EQ(memory[3]["tid"], 4321);
  EXPECT_EQ(memory[0]["args"],
            Json::parse(R"({"Total Reserved": 0, "Total Allocated": 30, "Bytes": 30, "Addr": 1000,
                            "Device Id": -1, "Device Type": 0, "Category": "parameter",
                            "Module": "layers.0"})"));
  EXPECT_EQ(memory[3]["args"]["Category"], "activation");
  EXPECT_EQ(memory[3]["args"]["Total Allocated"], 158);
  EXPECT_EQ(memory[5]["args"]["Bytes"], -70);
  EXPECT_EQ(memory[5]["args"]["Total Allocated"], 58);

  // As the viewer reads it: every point of the curve has all its parts.
  auto run = std::make_shared<insight::Run>(insight::Run::find({folder_}));
  run->load(1);
  const insight::Queries queries(run);
  const auto peak = queries.memory_peak({});
  EXPECT_EQ(peak["allocated"], 158);
  EXPECT_EQ(peak["categories"], Json::parse(R"({"activation": 50, "parameter": 108})"));
  ASSERT_EQ(peak["layers"].size(), 2u);
  EXPECT_EQ(peak["layers"][0]["module"], "layers.0");
  EXPECT_EQ(peak["layers"][0]["bytes"], 88);
  EXPECT_EQ(peak["layers"][1]["module"], "layers.\"1\"");
  const auto curve = queries.memory_curve({}, 1000);
  ASSERT_FALSE(curve["points"].empty());
  for (size_t i = 0; i < curve["points"].size(); ++i) {
    int64_t sum = 0;
    for (const auto& [name, values] : curve["categories"].items()) sum += values[i].get<int64_t>();
    EXPECT_EQ(curve["points"][i]["allocated"], sum) << i;
  }
}

TEST_F(Collection, HoldsWhatWasRecordedAndWhatIsOurs) {
  const auto stem = folder_ / trace_stem(3, 99, 1234567890123456789);
  write_trace(collect(), stem);
  EXPECT_THAT(names(), ElementsAre("rank-3_99.1234567890123456789.pt.trace.json.gz"));
  const auto trace = written(stem);
  EXPECT_EQ(trace["distributedInfo"]["rank"], 3);
  EXPECT_EQ(trace["mm"]["host"], "h");
  EXPECT_GT(trace["baseTimeNanoseconds"].get<int64_t>(), 1'500'000'000'000'000'000);

  const auto steps = events(trace, "user_annotation", "ProfilerStep#7");
  ASSERT_THAT(steps, SizeIs(1));
  const auto forward = events(trace, "user_annotation", "nn.Module: layers.0");
  const auto backward = events(trace, "module", "nn.Module: layers.0");
  const auto later = events(trace, "module", "nn.Module: layers.1");
  ASSERT_THAT(forward, SizeIs(1));
  ASSERT_THAT(backward, SizeIs(1));
  ASSERT_THAT(later, SizeIs(1));
  EXPECT_LE(forward[0].end, backward[0].begin);
  EXPECT_LE(later[0].end, backward[0].begin);  // backward runs from the last layer to the first
  EXPECT_EQ(backward[0].args["Pass"], "backward");
  // the products of backward are inside of their modules
  int inside = 0;
  for (const auto& mm : events(trace, "cpu_op", "aten::mm"))
    inside += mm.begin >= backward[0].begin && mm.end <= backward[0].end;
  EXPECT_EQ(inside, 1);  // x needs no gradient: only the weight's product
  EXPECT_THAT(events(trace, "user_annotation", "decode"), SizeIs(1));

  const auto calls = events(trace, "mm_comm", "dp allreduce");
  ASSERT_THAT(calls, SizeIs(1));
  EXPECT_EQ(calls[0].args["Bytes"], 40);
  EXPECT_EQ(calls[0].args["Seq"], 5);
  EXPECT_EQ(calls[0].args["Group tag"], "dp");
  EXPECT_EQ(calls[0].args["Process Group Ranks"], "[0, 1]");
  EXPECT_EQ(calls[0].args["Label"], "bucket \"3\"");
  EXPECT_DOUBLE_EQ(calls[0].args["Wait us"].get<double>(), 1.5);
  // our clock and Kineto's agree: 0.05 ms is far below what any view shows
  EXPECT_GT(calls[0].begin, steps[0].begin - 50);
  EXPECT_LT(calls[0].end, steps[0].end + 50);
}

TEST_F(Collection, AWaitForWhatRanBesideStandsOnItsThread) {
  auto parts = collect();
  ASSERT_THAT(parts.records.calls, SizeIs(1));
  auto& [call, thread] = parts.records.calls[0];
  call.beside = true;
  call.wait_begin_ns = call.end_ns - 1500;
  write_trace(std::move(parts), folder_ / "a");
  const auto trace = written(folder_ / "a");
  const auto calls = events(trace, "mm_comm", "dp allreduce");
  const auto waits = events(trace, "user_annotation", "gloo:wait for dp allreduce");
  ASSERT_THAT(calls, SizeIs(1));
  ASSERT_THAT(waits, SizeIs(1));
  EXPECT_NEAR(waits[0].end - waits[0].begin, 1.5, 2e-3);
  EXPECT_NEAR(waits[0].end, calls[0].end, 2e-3);
}

TEST_F(Collection, LevelZeroHoldsOperatorsAndStepsAlone) {
  const auto stem = folder_ / "rank-0_1.1234567890123456789";
  write_trace(collect(0), stem);
  const auto trace = written(stem);
  EXPECT_THAT(events(trace, "user_annotation", "ProfilerStep#7"), SizeIs(1));
  EXPECT_FALSE(events(trace, "cpu_op", "aten::mm").empty());
  EXPECT_THAT(events(trace, "user_annotation", "nn.Module: layers.0"), IsEmpty());
  EXPECT_THAT(events(trace, "mm_comm", "dp allreduce"), IsEmpty());
}

TEST_F(Collection, ASecondOneFollows) {
  write_trace(collect(), folder_ / "a");
  write_trace(collect(), folder_ / "b");
  EXPECT_THAT(events(written(folder_ / "b"), "user_annotation", "ProfilerStep#7"), SizeIs(1));
}

TEST_F(Collection, IsWorkedOutOnAnotherThread) {
  auto parts = collect();
  std::thread([&] { write_trace(std::move(parts), folder_ / "a"); }).join();
  EXPECT_THAT(events(written(folder_ / "a"), "user_annotation", "ProfilerStep#7"), SizeIs(1));
}

TEST_F(Collection, OutsideOfAWindowNothingIsRecorded) {
  EXPECT_EQ(trace_sink(), nullptr);
  {
    const TraceScope scope("nobody hears");
  }
  auto* sink = static_cast<TraceSink*>(&Recorder::instance());
  sink->record({.type = "late"});  // of a call that outlived its window
  EXPECT_THAT(Recorder::instance().end().calls, IsEmpty());
}

TEST_F(Collection, AFullDiskLeavesNothingBehind) {
  std::signal(SIGXFSZ, SIG_IGN);  // then a write beyond the limit fails as one to a full disk does
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  auto parts = collect();
  const rlimit small{.rlim_cur = 4096, .rlim_max = before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  std::string message;
  try {
    write_trace(std::move(parts), folder_ / "rank-0");
  } catch (const Error& error) {
    message = error.what();
  }
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_THAT(message, HasSubstr("is the disk full?"));
  EXPECT_THAT(names(), IsEmpty());
}

TEST_F(Collection, AFileInTheWayOfItsFolderIsNamed) {
  write_file_atomically(folder_.string(), "not a folder");
  auto parts = collect();
  EXPECT_THAT([&] { write_trace(std::move(parts), folder_ / "below" / "rank-0"); },
              testing::ThrowsMessage<Error>(HasSubstr(folder_.string())));
}

}  // namespace
}  // namespace triptych
