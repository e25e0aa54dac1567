#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <fstream>

#include "base/error.h"
#include "insight/trace_image.h"
#include "insight/trace_reader.h"
#include "insight/trace_tree.h"
#include "loaded.h"
#include "synthetic.h"

namespace triptych::insight {
namespace {

using testing::HasSubstr;

std::string events(std::string_view list) {
  return "{\"schemaVersion\": 1, \"traceEvents\": [" + std::string(list) + "]}";
}
std::string op(std::string_view name, std::string_view ts, std::string_view dur,
               std::string_view rest = "") {
  return "{\"ph\":\"X\",\"cat\":\"cpu_op\",\"name\":\"" + std::string(name) +
         "\",\"pid\":1,\"tid\":2,\"ts\":" + std::string(ts) + ",\"dur\":" + std::string(dur) +
         std::string(rest) + "}";
}
Trace read(std::string_view list) { return read_trace_text(events(list), "t.json"); }

EventId find(const Trace& t, std::string_view name) {
  for (EventId e = 0; e < t.num_events(); ++e)
    if (t.name(e) == name) return e;
  ADD_FAILURE() << "no event " << name;
  return 0;
}

TEST(TraceReader, ReadsOneEvent) {
  const auto t =
      read(op("aten::add", "5.001", "2", R"(,"args":{"External id":7,"Input Dims":[[2,3],[]]})"));
  ASSERT_EQ(t.num_events(), 1u);
  EXPECT_EQ(t.ts(0), 5001);
  EXPECT_EQ(t.dur(0), 2000);
  EXPECT_EQ(t.name(0), "aten::add");
  EXPECT_EQ(t.external_id(0), 7u);
  EXPECT_EQ(t.arguments(0)["External id"], 7);
  ASSERT_NE(t.op(0), nullptr);
  EXPECT_EQ(t.string(t.op(0)->shapes), "[[2,3],[]]");
  EXPECT_FALSE(t.truncated());
  EXPECT_TRUE(t.warnings().empty());
}

struct TimeCase {
  const char* text;
  int64_t ns;
};
class Times : public testing::TestWithParam<TimeCase> {};
TEST_P(Times, AreExactNanoseconds) {
  const auto t = read(op("a", GetParam().text, "1"));
  ASSERT_EQ(t.num_events(), 1u) << GetParam().text;
  EXPECT_EQ(t.ts(0), GetParam().ns);
}
INSTANTIATE_TEST_SUITE_P(Texts, Times,
                         testing::Values(TimeCase{"0", 0}, TimeCase{"12", 12000},
                                         TimeCase{"0.5", 500}, TimeCase{"-3.25", -3250},
                                         TimeCase{"1764000000000123.457",
                                                  1764000000000123457},  // does not fit a double
                                         TimeCase{"\"1764000000000123.457\"",
                                                  1764000000000123457},  // torch_npu writes words
                                         TimeCase{"7.0004", 7000}, TimeCase{"7.0006", 7001},
                                         TimeCase{"1.5e3", 1500000}));

TEST(TraceReader, TakesArraysAndObjects) {
  const auto array =
      read_trace_text("[" + op("a", "1", "2") + "," + op("b", "5", "1") + "]", "t.json");
  EXPECT_EQ(array.num_events(), 2u);
  const auto open =
      read_trace_text("[" + op("a", "1", "2") + "," + op("b", "5", "1") + ",", "t.json");
  EXPECT_EQ(open.num_events(), 2u);  // Chrome's form without an end
  EXPECT_TRUE(open.truncated());
}

TEST(TraceReader, ToleratesWhatRealFilesHold) {
  const auto t = read(op("a", "1", "2", R"(,"args":{"x":NaN,"y":-Infinity,"External id":3,})") +
                      ",," + op("b\n\x01 raw", "3", "1") + "," +
                      op("c \\\"q\\\" \\u00e9\\ud83d\\ude00", "5", "1") + ",");
  ASSERT_EQ(t.num_events(), 3u);
  EXPECT_EQ(t.external_id(find(t, "a")), 3u);
  EXPECT_EQ(t.arguments(find(t, "a"))["x"], "NaN");
  EXPECT_EQ(t.name(1), "b\n\x01 raw");
  EXPECT_EQ(t.name(2), "c \"q\" \xC3\xA9\xF0\x9F\x98\x80");
}

TEST(TraceReader, LeavesOutWhatItCannotUse) {
  const auto t =
      read(op("a", "1", "2") +
           R"(,{"ph":"X","name":"no time"},{"ph":"Z","name":"?"},{"name":"no phase"},17,"word",)" +
           op("b", "3", "2"));
  EXPECT_EQ(t.num_events(), 2u);
  EXPECT_THAT(t.warnings(), testing::Contains(HasSubstr("without a usable time")));
  EXPECT_FALSE(t.truncated());
}

TEST(TraceReader, SkipsADamagedStretch) {
  const auto t = read(op("a", "1", "2") + R"(,{"ph":"X" "name" oops },)" + op("b", "3", "2"));
  EXPECT_EQ(t.num_events(), 2u);
  EXPECT_THAT(t.warnings(), testing::Contains(HasSubstr("damaged")));
}

TEST(TraceReader, DeepNestingCostsNothing) {
  const std::string deep = std::string(200000, '[') + std::string(200000, ']');
  const auto t =
      read(op("a", "1", "2", ",\"args\":{\"x\":" + deep + "}") + "," + op("b", "3", "2"));
  EXPECT_EQ(t.num_events(), 2u);
  const auto half = read(op("a", "1", "2") + ",{\"ph\":\"X\",\"args\":" + std::string(300000, '{'));
  EXPECT_EQ(half.num_events(), 1u);
}

TEST(TraceReader, HugeNumbersStayInRange) {
  const auto t = read(op("a", "1", "2") + "," + op("b", "1e300", "1") + "," +
                      op("c", "99999999999999999999999", "1") + "," + op("d", "2", "1e300") + "," +
                      op("e", "3", "-5"));
  EXPECT_EQ(t.name(0), "a");
  for (EventId e = 0; e < t.num_events(); ++e) EXPECT_GE(t.dur(e), 0);
}

TEST(TraceReader, DropsWhatLiesDaysAway) {
  const auto t = read(op("zero", "0", "1") + "," + op("a", "1764000000000000", "2") + "," +
                      op("b", "1764000000000009", "2"));
  EXPECT_EQ(t.num_events(), 2u);
  EXPECT_THAT(t.warnings(), testing::Contains(HasSubstr("days away")));
}

TEST(TraceReader, RefusesWhatIsNoTrace) {
  EXPECT_THAT([] { read_trace_text("", "t.json"); },
              testing::ThrowsMessage<DataError>(HasSubstr("t.json: is empty")));
  EXPECT_THAT([] { read_trace_text("hello", "t.json"); },
              testing::ThrowsMessage<DataError>(HasSubstr("begins with")));
  EXPECT_THAT([] { read_trace_text("{\"a\": 1}", "t.json"); },
              testing::ThrowsMessage<DataError>(HasSubstr("traceEvents")));
}

TEST(TraceReader, NestsByContainment) {
  // outer [0, 100], inside it a [10, 20], b [10, 15] in a; c sticks out by 0.4 us; d really
  // overlaps.
  const auto t =
      read(op("outer", "0", "100") + "," + op("b", "10", "5") + "," + op("a", "10", "10") + "," +
           op("c", "90", "10.4") + "," + op("d", "95", "50"));
  EXPECT_EQ(t.parent(find(t, "outer")), kNone);
  EXPECT_EQ(t.parent(find(t, "a")), find(t, "outer"));
  EXPECT_EQ(t.parent(find(t, "b")), find(t, "a"));
  EXPECT_EQ(t.depth(find(t, "b")), 2u);
  EXPECT_EQ(t.parent(find(t, "c")), find(t, "outer"));
  EXPECT_EQ(t.parent(find(t, "d")), kNone);
  EXPECT_GT(t.depth(find(t, "d")), 0u);
  EXPECT_EQ(self_ns(t, find(t, "outer")), 100000 - 10000 - 10400);
  const auto self = self_times(t);
  EXPECT_EQ(self[find(t, "a")], 5000);
}

TEST(TraceReader, NeighboursThatRoundingOverlapsStayInOneRow) {
  const auto t =
      read(op("a", "0", "10.0004") + "," + op("b", "10", "5") + "," + op("c", "15", "1"));
  for (const auto* name : {"a", "b", "c"}) EXPECT_EQ(t.depth(find(t, name)), 0u) << name;
}

TEST(TraceReader, PairsBeginAndEnd) {
  const auto t = read(
      R"({"ph":"B","name":"x","pid":1,"tid":1,"ts":1},{"ph":"B","name":"y","pid":1,"tid":1,"ts":2},
    {"ph":"E","pid":1,"tid":1,"ts":4},{"ph":"E","pid":1,"tid":1,"ts":9},{"ph":"E","pid":1,"tid":1,"ts":11})");
  ASSERT_EQ(t.num_events(), 2u);
  EXPECT_EQ(t.dur(find(t, "x")), 8000);
  EXPECT_EQ(t.dur(find(t, "y")), 2000);
  EXPECT_THAT(t.warnings(), testing::Contains(HasSubstr("no partner")));
}

TEST(TraceReader, LinksLaunchesAndFlows) {
  const auto t = read(
      op("aten::mm", "0", "10", R"(,"args":{"External id":5,"Sequence number":4})") + "," +
      R"({"ph":"X","cat":"cuda_runtime","name":"cudaLaunchKernel","pid":1,"tid":2,"ts":2,"dur":3,"args":{"correlation":77,"External id":5}},
      {"ph":"X","cat":"kernel","name":"gemm","pid":0,"tid":7,"ts":20,"dur":4,"args":{"correlation":77,"stream":7,"device":0,"grid":[4,2,1],"block":[128,1,1]}},
      {"ph":"s","id":1,"pid":1,"tid":2,"ts":1,"cat":"fwdbwd","name":"fwdbwd"},
      {"ph":"f","id":1,"pid":1,"tid":3,"ts":50,"cat":"fwdbwd","name":"fwdbwd","bp":"e"},
      {"ph":"f","id":9,"pid":1,"tid":3,"ts":50,"cat":"fwdbwd","name":"no start","bp":"e"},
      {"ph":"X","cat":"cpu_op","name":"MmBackward","pid":1,"tid":3,"ts":50,"dur":5,"args":{"Sequence number":4,"Fwd thread id":2}})");
  const EventId kernel = find(t, "gemm"), launch = find(t, "cudaLaunchKernel");
  EXPECT_EQ(t.linked(kernel), launch);
  EXPECT_EQ(t.linked(launch), kernel);
  EXPECT_EQ(op_of(t, kernel), find(t, "aten::mm"));
  ASSERT_NE(t.kernel(kernel), nullptr);
  EXPECT_EQ(t.kernel(kernel)->grid[1], 2);
  EXPECT_EQ(t.work(kernel), Work::kCompute);
  ASSERT_EQ(t.flows().size(), 1u);
  EXPECT_EQ(t.flows()[0].from, find(t, "aten::mm"));
  EXPECT_EQ(t.flows()[0].to, find(t, "MmBackward"));
  EXPECT_TRUE(t.has_device_work());
}

TEST(TraceReader, WithoutLaunchesKernelsFollowTheExternalId) {
  const auto t = read(
      op("aten::mm", "0", "10", R"(,"args":{"External id":5})") +
      R"(,{"ph":"X","cat":"kernel","name":"gemm","pid":0,"tid":7,"ts":20,"dur":4,"args":{"External id":5,"stream":7}})");
  EXPECT_EQ(op_of(t, find(t, "gemm")), find(t, "aten::mm"));
}

TEST(TraceReader, ReadsCollectivesMemoryCountersSteps) {
  const auto t = read(
      op("ProfilerStep#3", "0", "100") +
      R"(,{"ph":"X","cat":"user_annotation","name":"ProfilerStep#4","pid":1,"tid":2,"ts":100,"dur":50},
      {"ph":"X","cat":"user_annotation","name":"ProfilerStep#3","pid":1,"tid":2,"ts":0,"dur":100},
      {"ph":"X","cat":"mm_comm","name":"dp allreduce","pid":1,"tid":9,"ts":5,"dur":10,"args":{"Collective name":"allreduce","In msg nelems":1024,
       "Out msg nelems":1024,"dtype":"Float","Group size":2,"Process Group Name":"dp0","Process Group Ranks":"[0, 1]","Group tag":"dp","Seq":4,"Wait us":1.5}},
      {"ph":"X","cat":"mm_comm","name":"ag","pid":1,"tid":9,"ts":25,"dur":10,"args":{"Collective name":"_allgather_base","In msg nelems":8,"Out msg nelems":16,"dtype":"BFloat16"}},
      {"ph":"i","cat":"cpu_instant_event","name":"[memory]","pid":1,"tid":2,"ts":7,"s":"t","args":{"Addr":64,"Bytes":100,"Total Allocated":300,"Total Reserved":0,"Device Type":0,"Device Id":-1}},
      {"ph":"C","name":"queue","pid":1,"ts":8,"args":{"depth":3}})");
  ASSERT_EQ(t.steps().size(), 2u);
  EXPECT_EQ(t.steps()[0].number, 3);
  EXPECT_EQ(t.steps()[1].duration_ns(), 50000);
  ASSERT_EQ(t.collectives().size(), 2u);
  const auto& c = *t.collective(find(t, "dp allreduce"));
  EXPECT_EQ(c.bytes, 4096);
  EXPECT_EQ(c.sequence, 4);
  EXPECT_EQ(c.wait_ns, 1500);
  EXPECT_EQ(t.string(c.group_tag), "dp");
  EXPECT_EQ(t.collective(find(t, "ag"))->bytes, 32);  // what comes out, of an all-gather
  ASSERT_EQ(t.memory().size(), 1u);
  EXPECT_EQ(t.memory()[0].total_allocated, 300);
  ASSERT_EQ(t.counters().size(), 1u);
  EXPECT_EQ(t.counters()[0].value, 3);
}

TEST(TraceReader, UnderstandsTorchNpu) {
  const auto t = read_trace_text(R"([
    {"ph":"M","name":"process_name","pid":10,"tid":0,"args":{"name":"Python"}},
    {"ph":"M","name":"process_name","pid":20,"tid":0,"args":{"name":"Ascend Hardware"}},
    {"ph":"M","name":"process_name","pid":30,"tid":0,"args":{"name":"Communication"}},
    {"ph":"M","name":"thread_name","pid":30,"tid":1,"args":{"name":"Group 0 Communication"}},
    {"ph":"M","name":"thread_name","pid":30,"tid":2,"args":{"name":"Plane 0"}},
    {"ph":"M","name":"process_name","pid":40,"tid":0,"args":{"name":"Overlap Analysis"}},
    {"ph":"X","name":"ProfilerStep#1","pid":10,"tid":1,"ts":"1764000000000000.000","dur":900},
    {"ph":"X","name":"aten::matmul","pid":10,"tid":1,"ts":"1764000000000010.125","dur":20},
    {"ph":"X","name":"MatMulV2","pid":20,"tid":3,"ts":"1764000000000100.500","dur":300,"args":{"Task Type":"AI_CORE"}},
    {"ph":"X","name":"EVENT_WAIT","pid":20,"tid":3,"ts":"1764000000000400.500","dur":5},
    {"ph":"X","name":"hcom_allReduce__123_0","pid":30,"tid":1,"ts":"1764000000000300.000","dur":200},
    {"ph":"X","name":"Memcpy","pid":30,"tid":2,"ts":"1764000000000310.000","dur":20},
    {"ph":"X","name":"Computing","pid":40,"tid":1,"ts":"1764000000000100.500","dur":300}])",
                                 "trace_view.json");
  EXPECT_TRUE(t.has_device_work());
  EXPECT_EQ(t.work(find(t, "MatMulV2")), Work::kCompute);
  EXPECT_EQ(t.work(find(t, "EVENT_WAIT")), Work::kSync);
  EXPECT_EQ(t.work(find(t, "hcom_allReduce__123_0")), Work::kCommunication);
  EXPECT_EQ(t.work(find(t, "Memcpy")), Work::kNone);     // a task of the collective: counted there
  EXPECT_EQ(t.work(find(t, "Computing")), Work::kNone);  // derived from the others
  EXPECT_EQ(t.steps().size(), 1u);
  EXPECT_EQ(t.ts(find(t, "aten::matmul")), 1764000000000010125);
}

/// Cut anywhere, the text gives all events that were whole before the cut, and never fails
/// otherwise than by saying that there is no trace in it.
TEST(TraceReader, CutAtEveryByte) {
  const auto whole =
      synthetic_traces({.data = 1, .steps = 1, .layers = 1, .ops_per_layer = 1, .micro_batches = 1})
          .front();
  const auto all = read_trace_text(whole, "t.json");
  size_t before = 0;
  for (size_t cut = 0; cut < whole.size(); ++cut) {
    try {
      const auto t = read_trace_text(std::string_view(whole).substr(0, cut), "t.json");
      const size_t records = t.num_events() + t.memory().size();
      EXPECT_GE(records, before) << "cut at " << cut;
      EXPECT_LE(records, all.num_events() + all.memory().size());
      before = records;
      if (cut + 3 < whole.size()) {
        EXPECT_TRUE(t.truncated()) << "cut at " << cut;
      }
    } catch (const DataError&) {
      EXPECT_LT(cut, whole.find("traceEvents") + 16);
    }
  }
  EXPECT_EQ(before, all.num_events() + all.memory().size());
}

void gzip(const fs::path& path, std::string_view text) {
  gzFile file = gzopen(path.c_str(), "wb6");
  ASSERT_EQ(gzwrite(file, text.data(), static_cast<unsigned>(text.size())),
            static_cast<int>(text.size()));
  gzclose(file);
}

TEST(TraceReader, GzEqualsPlainAndArgumentsAreFoundAgain) {
  Scratch folder;
  const auto text =
      synthetic_traces({.data = 1, .steps = 40, .layers = 12, .micro_batches = 8}).front();
  ASSERT_GT(text.size(), size_t{20} << 20);  // several access points
  gzip(folder / "a.json.gz", text);
  std::ofstream(folder / "a.json", std::ios::binary) << text;
  const auto plain = read_trace(folder / "a.json", {.use_index = false, .write_index = false});
  const auto packed = read_trace(folder / "a.json.gz", {.use_index = false, .write_index = false});
  ASSERT_EQ(plain.num_events(), packed.num_events());
  for (EventId e = 0; e < plain.num_events(); e += 9973) {
    EXPECT_EQ(plain.ts(e), packed.ts(e));
    EXPECT_EQ(plain.name(e), packed.name(e));
    EXPECT_EQ(plain.arguments(e), packed.arguments(e)) << e;
  }
  EXPECT_FALSE(packed.arguments(static_cast<EventId>(packed.num_events() - 1)).empty());
}

TEST(TraceReader, TornGzGivesItsBeginning) {
  Scratch folder;
  const auto text = synthetic_traces({.data = 1, .steps = 6}).front();
  gzip(folder / "a.json.gz", text);
  fs::resize_file(folder / "a.json.gz", fs::file_size(folder / "a.json.gz") / 2);
  const auto t = read_trace(folder / "a.json.gz", {.use_index = false, .write_index = false});
  EXPECT_GT(t.num_events(), 100u);
  EXPECT_TRUE(t.truncated());
  EXPECT_THAT(t.warnings(), testing::Contains(HasSubstr("breaks off")));
}

TEST(TraceReader, PartsEqualTheWhole) {
  Scratch folder;
  const auto text =
      synthetic_traces({.data = 1, .steps = 8, .layers = 16, .micro_batches = 8}).front();
  ASSERT_GT(text.size(), size_t{8} << 20);
  std::ofstream(folder / "a.json", std::ios::binary) << text;
  const auto one =
      read_trace(folder / "a.json", {.jobs = 1, .use_index = false, .write_index = false});
  const auto many =
      read_trace(folder / "a.json",
                 {.jobs = 3, .split_bytes = 1 << 20, .use_index = false, .write_index = false});
  ASSERT_EQ(one.num_events(), many.num_events());
  EXPECT_EQ(one.memory().size(), many.memory().size());
  EXPECT_EQ(one.metadata(), many.metadata());
  for (EventId e = 0; e < one.num_events(); ++e) {
    ASSERT_EQ(one.ts(e), many.ts(e));
    ASSERT_EQ(one.name(e), many.name(e));
    ASSERT_EQ(one.linked(e), many.linked(e));
  }
}

TEST(TraceIndex, OpensWhatWasWritten) {
  Scratch folder;
  const auto path = write_synthetic_run({.data = 1, .steps = 3}, folder.path(), true).front();
  const auto fresh = read_trace(path);
  ASSERT_TRUE(fs::exists(TraceImage::index_beside(path)));
  const auto opened = TraceImage::open(TraceImage::index_beside(path), path, identify(path));
  ASSERT_TRUE(opened.has_value());
  ASSERT_EQ(opened->num_events(), fresh.num_events());
  EXPECT_EQ(opened->metadata(), fresh.metadata());
  EXPECT_EQ(opened->buckets().size(), fresh.buckets().size());
  EXPECT_EQ(opened->steps().size(), 3u);
  for (EventId e = 0; e < fresh.num_events(); e += 13) {
    EXPECT_EQ(opened->name(e), fresh.name(e));
    EXPECT_EQ(opened->arguments(e), fresh.arguments(e));
  }
}

TEST(TraceIndex, IsLeftAloneWhenTheTraceChangedOrTheIndexIsDamaged) {
  Scratch folder;
  const auto path = write_synthetic_run({.data = 1, .steps = 2}, folder.path()).front();
  const auto index = TraceImage::index_beside(path);
  read_trace(path);
  auto other = identify(path);
  ++other.modified_ns;
  EXPECT_FALSE(TraceImage::open(index, path, other).has_value());
  std::string bytes;
  {
    std::ifstream in(index, std::ios::binary);
    bytes.assign(std::istreambuf_iterator<char>(in), {});
  }
  // Whatever one flips: refused, or positions that are all inside.
  for (size_t at = 0; at < bytes.size(); at += at < 2048 ? 7 : 4099) {
    auto damaged = bytes;
    damaged[at] = static_cast<char>(damaged[at] ^ 0xff);
    std::ofstream(index, std::ios::binary) << damaged;
    const auto t = TraceImage::open(index, path, identify(path));
    if (!t) continue;
    for (EventId e = 0; e < t->num_events(); ++e) {
      (void)t->name(e);
      (void)t->collective(e);
      if (t->parent(e) != kNone) {
        EXPECT_LT(t->parent(e), t->num_events());
      }
    }
  }
  for (const size_t size : {size_t{0}, size_t{100}, bytes.size() / 2, bytes.size() - 1}) {
    std::ofstream(index, std::ios::binary) << bytes.substr(0, size);
    EXPECT_FALSE(TraceImage::open(index, path, identify(path)).has_value());
  }
}

TEST(TraceReader, CanBeCancelled) {
  Scratch folder;
  const auto path = write_synthetic_run({.data = 1, .steps = 2}, folder.path()).front();
  LoadProgress progress;
  progress.cancel = true;
  EXPECT_THROW(read_trace(path, {.use_index = false, .progress = &progress}), Cancelled);
}

}  // namespace
}  // namespace triptych::insight
