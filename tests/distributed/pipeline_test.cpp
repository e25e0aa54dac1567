// The executor of a pipeline on layers that are no model: fields that come and go, tensors without
// an element, gradients that nobody finds, micro-batches that nobody computes, freed outputs, and a
// rank that fails while another waits for it.

#include "parallel/pipeline.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include <iostream>
#include <map>
#include <thread>

#include "base/format.h"
#include "base/log.h"
#include "parallel/process_context.h"
#include "ranks.h"

namespace triptych {
namespace {

using testing::HasSubstr;
using testing_ranks::run_ranks;

constexpr int64_t kMicroBatches = 8, kWidth = 6;

at::Tensor weight_of(int64_t stage) {
  return (at::arange(kWidth, at::kFloat) * 0.1F + 0.3F * static_cast<float>(stage + 1))
      .set_requires_grad(true);
}

at::Tensor input_of(int64_t i) {  // other lengths in every micro-batch
  return at::arange((i + 1) * kWidth, at::kFloat).view({i + 1, kWidth}) * 0.02F;
}

bool computed(int64_t i) { return i != 4; }

/// One virtual stage: some micro-batches carry more than "x".
void run_stage(int64_t stage, int64_t i, const at::Tensor& weight, Flow& flow) {
  const auto x = flow.has("x") ? flow.at("x") : flow.at("input");
  const auto y = at::tanh(x * weight);
  flow.set("x", y);
  if (stage == 0 && i % 3 == 1) flow.set("skip", y * 2);                 // used by the last stage
  if (stage == 0 && i % 3 == 2) flow.set("none", y.narrow(0, 0, 0));     // no element
  if (stage == 0 && i % 4 == 3) flow.set("unused", (y * weight).sum());  // no gradient comes back
}

at::Tensor loss_of(const Flow& flow) {
  auto loss = flow.at("x").sum().to(at::kDouble);
  if (flow.has("skip")) loss = loss + (flow.at("skip") * flow.at("x")).sum();
  if (flow.has("none")) loss = loss + flow.at("none").sum();
  return loss;
}

/// All stages in one process: loss and gradients of the weights.
struct Reference {
  double loss = 0;
  std::vector<at::Tensor> weights;
};
Reference run_alone(int64_t stages) {
  Reference result;
  for (int64_t s = 0; s < stages; ++s) result.weights.push_back(weight_of(s));
  for (int64_t i = 0; i < kMicroBatches; ++i) {
    if (!computed(i)) continue;
    Flow flow;
    flow.set("input", input_of(i));
    for (int64_t s = 0; s < stages; ++s)
      run_stage(s, i, result.weights[static_cast<size_t>(s)], flow);
    const auto loss = loss_of(flow);
    result.loss += loss.item<double>();
    loss.backward();
  }
  return result;
}

void check(ProcessContext& process, const Json& config) {
  const PipelineShape shape{.stages = process.world_size(),
                            .chunks = config.at("chunks"),
                            .group = 0,
                            .order = config.at("zero_bubble").get<bool>()
                                         ? PipelineOrder::kZeroBubbleH1
                                         : PipelineOrder::k1F1B};
  process.set_mesh({.pipeline = shape.stages});
  const int64_t rank = process.rank();
  Pipeline pipeline({.shape = shape, .rank = rank, .fields = {"x", "skip", "none", "unused"}},
                    pipeline_groups(process, shape.chunks));
  std::map<int64_t, at::Tensor> weights;  // by virtual stage
  for (int64_t c = 0; c < shape.chunks; ++c)
    weights[c * shape.stages + rank] = weight_of(c * shape.stages + rank);

  double loss = 0;
  std::map<std::pair<int64_t, int64_t>, c10::weak_intrusive_ptr<c10::TensorImpl>> sent;
  std::vector<int64_t> done;
  PipelineWork work;
  work.computes = computed;
  work.make_flow = [&](int64_t i) {
    Flow flow;
    if (rank == 0) flow.set("input", input_of(i));
    return flow;
  };
  work.run_layers = [&](int64_t chunk, int64_t i, Flow& flow) {
    const int64_t stage = chunk * shape.stages + rank;
    require(!config.contains("fails") || rank + 1 < shape.stages || i < 2, "a layer that fails");
    run_stage(stage, i, weights.at(stage), flow);
    if (stage + 1 < shape.virtual_stages())
      sent.emplace(std::pair(chunk, i),
                   c10::weak_intrusive_ptr<c10::TensorImpl>(flow.at("x").getIntrusivePtr()));
  };
  work.loss = [&](int64_t, const Flow& flow) {
    const auto part = loss_of(flow);
    loss += part.item<double>();
    return part;
  };
  work.chunk_done = [&](int64_t chunk) { done.push_back(chunk); };
  int64_t slots = 0;
  work.observe = [&](const SlotRecord& record) {
    ++slots;
    require(record.end_s >= record.begin_s && record.waited_s >= 0 && record.rank == rank,
            "a wrong record: ", record.name());
    if (record.slot.kind == SlotKind::kForward) return;
    // The output of the next micro-batch, whose graph still waits for its backward, is out by now
    // or soon: then nobody may hold it. (Its own graph holds that of some: see "unused".)
    const int64_t next = record.slot.micro_batch + 1;
    const auto it = sent.find({record.slot.chunk, next});
    if (shape.chunks > 1 || it == sent.end() || next % 4 == 3) return;
    for (int tries = 0; !it->second.expired() && tries < 500; ++tries)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    require(it->second.expired(), "the output of micro-batch ", next, " is still held");
  };
  for (int step = 0; step < 2; ++step) {  // gradients of two steps add up
    process.set_step(step + 1);
    loss = 0;
    sent.clear();
    pipeline.run(work, kMicroBatches);
  }
  const auto want = run_alone(shape.virtual_stages());
  for (const auto& [stage, weight] : weights) {
    const auto expected = want.weights[static_cast<size_t>(stage)].grad() * 2;
    require(weight.grad().allclose(expected, 1e-6, 1e-6), "gradient of stage ", stage, ": ",
            weight.grad(), ", expected ", expected);
  }
  require(rank + 1 < shape.stages || std::abs(loss - want.loss) < 1e-9 * std::abs(want.loss),
          "loss ", loss, ", expected ", want.loss);
  require(static_cast<int64_t>(done.size()) == 2 * shape.chunks && done.back() == 0 &&
              done.front() == shape.chunks - 1,
          "chunks are done in another order than last to first");
  const int64_t kinds = config.at("zero_bubble").get<bool>() ? 3 : 2;
  require(slots == 2 * shape.chunks * kinds * (kMicroBatches - 1), slots, " slots were observed");

  loss = 0;
  pipeline.run_forward(work, kMicroBatches);
  require(rank + 1 < shape.stages || std::abs(loss - want.loss) < 1e-9 * std::abs(want.loss),
          "loss of a forward ", loss, ", expected ", want.loss);
}

int toy(const Json& config) {
  std::unique_ptr<ProcessContext> process;
  try {
    process = std::make_unique<ProcessContext>(
        read_launch_environment(), ProcessOptions{.threads = 1, .timeout_s = 60, .poll_s = 0.2});
    check(*process, config);
    process->close();
    return 0;
  } catch (const std::exception& error) {
    if (!process || process->report_failure(error)) log_error("{}", error.what());
    return 1;
  }
}

struct Case {
  int ranks;
  int64_t chunks;
  bool zero_bubble;
};

class Toy : public testing::TestWithParam<Case> {};

TEST_P(Toy, FindsTheGradientsOfOneProcess) {
  const auto& c = GetParam();
  const auto started =
      run_ranks(c.ranks, "toy", {{"chunks", c.chunks}, {"zero_bubble", c.zero_bubble}});
  for (const auto& rank : started.ranks) EXPECT_EQ(rank.status, 0) << rank.output;
}

INSTANTIATE_TEST_SUITE_P(Shapes, Toy,
                         testing::Values(Case{2, 1, false}, Case{2, 2, false}, Case{4, 2, false},
                                         Case{2, 4, false}, Case{3, 1, true}));

TEST(Failure, ARankThatFailsStopsTheOnesThatWaitForIt) {
  const auto started =
      run_ranks(2, "toy", {{"chunks", 1}, {"zero_bubble", false}, {"fails", true}});
  EXPECT_LT(started.seconds, 20);  // well below the time-out of a message
  std::string said;
  for (const auto& rank : started.ranks) {
    EXPECT_NE(rank.status, 0) << rank.output;
    said += rank.output;
  }
  EXPECT_THAT(said, HasSubstr("a layer that fails"));
}

}  // namespace
}  // namespace triptych

int main(int argc, char** argv) {
  triptych::testing_ranks::add_scenario("toy", triptych::toy);
  return triptych::testing_ranks::run_main(argc, argv);
}
