// The books of tensor memory against sizes counted by hand.

#include "kernels/memory_ledger.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <pthread.h>
#include <sys/resource.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/variable.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <numeric>
#include <set>
#include <string>
#include <thread>

#include "kernels/cpu_allocator.h"
#include "kernels/memory_report.h"
#include "kernels/memory_scope.h"

namespace triptych {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;
using Kind = MemoryKind;
using Phase = MemoryPhase;

int64_t held(const MemoryTotals& totals, Kind kind) {
  return totals.by_kind[static_cast<size_t>(kind)];
}
int64_t held(const MemoryTotals& totals, const char* layer, Kind kind) {
  const size_t number = memory_layer(layer);
  return number < totals.by_layer.size() ? totals.by_layer[number][static_cast<size_t>(kind)] : 0;
}

class Memory : public testing::Test {
 protected:
  static void SetUpTestSuite() { install_cpu_allocator(); }
  void SetUp() override {
    reset_memory_peak();
    before_ = memory_totals();
  }
  /// What came since the test began.
  int64_t more(Kind kind) const { return held(memory_totals(), kind) - held(before_, kind); }
  int64_t more() const { return memory_totals().bytes - before_.bytes; }

  MemoryTotals before_;
};

TEST_F(Memory, CountsWhatWasAskedFor) {
  auto a = at::empty({1000}, at::kFloat);
  EXPECT_EQ(more(), 4000);
  auto b = at::empty({3}, at::kBFloat16), none = at::empty({0});
  EXPECT_EQ(more(), 4006);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(a.data_ptr()) % 64, 0u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(b.data_ptr()) % 64, 0u);
  a.reset();
  EXPECT_EQ(more(), 6);
  const auto zeros = lazy_zeros({100, 10}, at::kFloat);  // not from the allocator, but a tensor
  EXPECT_EQ(more(), 4006);
  EXPECT_EQ(cpu_allocator_stats().current_bytes, memory_totals().bytes);
}

TEST_F(Memory, SumsOfKindsAndOfLayersAreTheTotal) {
  const MemoryScope scope(Phase::kForward, "sums.layer");
  std::vector<at::Tensor> kept;
  for (int i = 1; i < 50; ++i) {
    kept.push_back(at::empty({i}));
    if (i % 3 == 0) tag_memory(kept.back(), static_cast<Kind>(i % 8), "sums.layer.weight");
    if (i % 4 == 0) kept.erase(kept.begin());
    for (const auto& totals : {memory_totals(), memory_peak(), memory_peak_of_run()}) {
      EXPECT_EQ(std::accumulate(totals.by_kind.begin(), totals.by_kind.end(), int64_t{0}),
                totals.bytes);
      int64_t layers = 0;
      for (const auto& kinds : totals.by_layer)
        layers += std::accumulate(kinds.begin(), kinds.end(), int64_t{0});
      EXPECT_EQ(layers, totals.bytes);
    }
  }
}

TEST_F(Memory, PeakHasThePartsOfItsMoment) {
  auto kept = at::empty({256});
  tag_memory(kept, Kind::kParameter);
  {
    auto a = at::empty({1000}), b = at::empty({500});
    tag_memory(a, Kind::kGradient);
    tag_memory(b, Kind::kOptimizerState);
  }
  const auto later = at::empty({1200});
  const auto peak = memory_peak();
  EXPECT_EQ(peak.bytes - before_.bytes, 1024 + 4000 + 2000);
  EXPECT_EQ(held(peak, Kind::kGradient) - held(before_, Kind::kGradient), 4000);
  EXPECT_EQ(held(peak, Kind::kOptimizerState) - held(before_, Kind::kOptimizerState), 2000);
  EXPECT_GE(memory_peak_of_run().bytes, peak.bytes);
  reset_memory_peak();
  EXPECT_EQ(memory_peak().bytes - before_.bytes, 1024 + 4800);
}

TEST_F(Memory, ViewsTakeTheirPartAlong) {
  memory_layer("views.0");
  memory_layer("views.1");
  auto flat = at::empty({100});
  tag_memory(flat, Kind::kParameter);
  tag_memory(flat.narrow(0, 0, 30), Kind::kParameter, "views.0.weight");
  tag_memory(flat.narrow(0, 64, 20).view({4, 5}), Kind::kGradient, "views.1.weight");
  tag_memory(flat.narrow(0, 64, 20), Kind::kGradient, "views.1.weight");  // again: nothing changes
  EXPECT_EQ(held(memory_totals(), "views.0", Kind::kParameter), 120);
  EXPECT_EQ(held(memory_totals(), "views.1", Kind::kGradient), 80);
  EXPECT_EQ(more(Kind::kParameter), 320);
  EXPECT_EQ(more(), 400);
  flat.reset();
  EXPECT_EQ(more(), 0);
  EXPECT_EQ(held(memory_totals(), "views.0", Kind::kParameter), 0);
  EXPECT_EQ(held(memory_totals(), "views.1", Kind::kGradient), 0);
}

/// y = gelu(x W^T) in the layer's scope. Kept for backward: x (the caller's), and x W^T.
at::Tensor layer(const char* name, const at::Tensor& x, const at::Tensor& weight) {
  const MemoryScope scope(Phase::kForward, name);
  at::empty({777});  // a temporary
  return at::gelu(at::linear(x, weight));
}

// T = 24 tokens, D = 16: every tensor of a layer is 24 x 16 x 4 = 1536 bytes, a weight 1024.
TEST_F(Memory, KnowsTheActivationsAndGradientsOfLayers) {
  const auto x = at::randn({24, 16});
  std::vector<at::Tensor> weights;
  for (const char* name : {"known.0.weight", "known.1.weight"}) {
    weights.push_back(at::randn({16, 16}).set_requires_grad(true));
    memory_layer(std::string_view(name).substr(0, 7));
    tag_memory(weights.back(), Kind::kParameter, name);
  }
  EXPECT_EQ(held(memory_totals(), "known.0", Kind::kParameter), 1024);
  auto y = layer("known.0", x, weights[0]);
  EXPECT_EQ(held(memory_totals(), "known.0", Kind::kActivation), 2 * 1536);
  EXPECT_EQ(held(memory_totals(), "known.0", Kind::kTemporary), 0);
  y = layer("known.1", y, weights[1]);
  EXPECT_EQ(held(memory_totals(), "known.0", Kind::kActivation), 2 * 1536);
  EXPECT_EQ(held(memory_totals(), "known.1", Kind::kActivation), 2 * 1536);

  start_memory_recording();
  torch::autograd::backward({y}, {at::ones_like(y)});
  y.reset();
  const auto recording = stop_memory_recording();
  EXPECT_EQ(held(memory_totals(), "known.0", Kind::kActivation), 0);
  EXPECT_EQ(held(memory_totals(), "known.1", Kind::kActivation), 0);
  for (size_t i = 0; i < 2; ++i)
    tag_memory(weights[i].grad(), Kind::kGradient, i == 0 ? "known.0.weight" : "known.1.weight");
  EXPECT_EQ(more(Kind::kGradient), 2 * 1024);
  // Each layer's backward is found by its sequence numbers: its gradient of the product, of the
  // weight, and, in the second, of its input; 1024 bytes are a weight's.
  std::map<std::string, int64_t> weight_gradients, made;
  for (const auto& event : recording.events) {
    if (event.bytes < 0) continue;
    const auto& name = recording.layers.at(event.tag.layer);
    if (!name.empty()) EXPECT_EQ(event.tag.phase, Phase::kBackward);
    weight_gradients[name] += event.bytes == 1024 ? 1 : 0;
    made[name] += event.bytes;
  }
  EXPECT_EQ(weight_gradients["known.0"], 1);
  EXPECT_EQ(weight_gradients["known.1"], 1);
  EXPECT_GE(made["known.1"], 1024 + 2 * 1536);
  EXPECT_GE(made["known.0"], 1024 + 1536);
}

TEST_F(Memory, RecordsWhatCameAndWent) {
  auto before = at::empty({64});
  const auto alive = memory_totals().bytes;
  start_memory_recording();
  EXPECT_THAT([] { start_memory_recording(); }, ThrowsMessage<Error>(HasSubstr("under way")));
  auto a = at::empty({10});
  auto b = at::empty({20});
  before.reset();
  a.reset();
  tag_memory(b, Kind::kGradient);
  const auto recording = stop_memory_recording();
  std::vector<int64_t> bytes;
  for (const auto& event : recording.events) bytes.push_back(event.bytes);
  EXPECT_THAT(bytes, testing::ElementsAre(40, 80, -256, -40));
  EXPECT_EQ(recording.events[1].tag.kind, Kind::kGradient) << "known only after the allocation";
  EXPECT_EQ(recording.events[0].block, recording.events[3].block);
  EXPECT_TRUE(std::ranges::is_sorted(recording.events, {}, &MemoryEvent::time_ns));
  const auto sum = [](const std::vector<MemoryBlock>& blocks) {
    int64_t total = 0;
    for (const auto& block : blocks) total += block.bytes;
    return total;
  };
  EXPECT_EQ(sum(recording.before), alive);
  EXPECT_EQ(sum(recording.after), memory_totals().bytes);
  EXPECT_EQ(sum(recording.before) + std::accumulate(bytes.begin(), bytes.end(), int64_t{0}),
            sum(recording.after));
}

TEST_F(Memory, KeepsTheNewestEvents) {
  start_memory_recording(5);
  for (int i = 1; i <= 6; ++i) at::empty({i});  // 12 events
  const auto recording = stop_memory_recording();
  std::vector<int64_t> bytes;
  for (const auto& event : recording.events) bytes.push_back(event.bytes);
  EXPECT_THAT(bytes, testing::ElementsAre(-16, 20, -20, 24, -24));
  EXPECT_EQ(recording.dropped, 7);
}

TEST_F(Memory, CountsAndNamesEveryThread) {
  constexpr int kThreads = 4, kEach = 2000;
  start_memory_recording();
  std::vector<std::thread> threads;
  std::vector<std::vector<at::Tensor>> kept(kThreads);
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      pthread_setname_np(pthread_self(), "a_loader");
      for (int k = 0; k < kEach; ++k) {
        const auto gone = at::empty({k + 1});
        if (k % 100 == 0) kept[static_cast<size_t>(i)].push_back(at::empty({5}));
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(more(), kThreads * (kEach / 100) * 20);
  const auto recording = stop_memory_recording();
  EXPECT_EQ(recording.events.size(), size_t{kThreads} * (2 * kEach + kEach / 100));
  int64_t running = 0;
  std::set<uint16_t> seen;
  for (const auto& event : recording.events) {
    running += event.bytes;
    EXPECT_GE(running, 0);
    seen.insert(event.thread);
    EXPECT_THAT(recording.threads.at(event.thread), HasSubstr("a_loader"));
  }
  EXPECT_EQ(running, more());
  EXPECT_EQ(seen.size(), size_t{kThreads});
  kept.clear();  // freed by another thread than made it
  EXPECT_EQ(more(), 0);
}

TEST_F(Memory, AFailedAllocationSaysWhatIsHeld) {
  set_memory_context({.rank = 3, .advice = [](const MemoryTotals& totals) {
                        EXPECT_GT(totals.bytes, 0);
                        return std::vector<std::string>{"a smaller model"};
                      }});
  set_memory_step(12);
  memory_layer("failing.4");
  const auto weight = at::empty({1 << 20});
  tag_memory(weight, Kind::kParameter, "failing.4.weight");
  // 2^46 floats are more than an address space of 47 bits holds.
  const auto fail = [] {
    const MemoryScope scope(Phase::kForward, "failing.4");
    at::empty({int64_t{1} << 46});
  };
  EXPECT_THAT(
      fail, ThrowsMessage<OutOfMemory>(
                AllOf(HasSubstr("out of memory: rank 3, step 12, forward of failing.4: "
                                "262144.00 GiB asked for"),
                      HasSubstr("4.0 MiB  parameter of failing.4"), HasSubstr("a smaller model"))));
  EXPECT_THAT([] { lazy_zeros({int64_t{1} << 46}, at::kFloat); },
              ThrowsMessage<OutOfMemory>(HasSubstr("Cannot allocate memory")));
  set_memory_context({});
  set_memory_step(0);
  EXPECT_EQ(more(), 4 << 20) << "nothing stays behind";
}

// The whole address space of a process may end as well.
TEST_F(Memory, ALimitOfTheAddressSpaceIsNamed) {
  const auto child = [] {
    std::ifstream status("/proc/self/status");
    int64_t kib = 0;
    for (std::string word; status >> word && kib == 0;)
      if (word == "VmSize:") status >> kib;
    const auto limit = static_cast<rlim_t>(kib) * 1024 + (64 << 20);
    const rlimit both{limit, limit};
    setrlimit(RLIMIT_AS, &both);
    try {
      const MemoryScope scope(Phase::kForward, "narrow.1");
      at::empty({64 << 20}, at::kFloat);
    } catch (const OutOfMemory& error) {
      std::fputs(error.what(), stderr);
      std::_Exit(9);
    }
    std::_Exit(0);
  };
  EXPECT_EXIT(child(), testing::ExitedWithCode(9), "forward of narrow.1: 256.0 MiB asked for");
}

}  // namespace
}  // namespace triptych
