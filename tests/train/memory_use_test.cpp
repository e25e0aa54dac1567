// What a run is told when its memory does not suffice.

#include "train/memory_use.h"

#include <gmock/gmock.h>

namespace triptych {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

/// So many bytes of one kind, and a bit of everything else.
MemoryTotals mostly(MemoryKind kind) {
  MemoryTotals totals;
  for (size_t k = 0; k < kMemoryKinds; ++k) totals.by_kind[k] = 1;
  totals.by_kind[static_cast<size_t>(kind)] = 1000;
  totals.bytes = 1000 + kMemoryKinds - 1;
  return totals;
}

RunOptions plain_options() {
  RunOptions options;
  options.output = "out";
  options.model.path = "model";
  options.data.train.push_back({.path = "data.jsonl"});
  options.train.steps = 1;
  options.train.global_batch = 8;
  options.train.micro_batch = 4;
  return options;
}

TEST(MemoryAdvice, NamesWhatTouchesTheLargestPart) {
  const auto activations = memory_advice(plain_options(), mostly(MemoryKind::kActivation));
  EXPECT_THAT(activations, Contains(HasSubstr("recompute.policy = \"full\"")));
  EXPECT_THAT(activations, Contains(HasSubstr("train.micro_batch = 1 (now 4)")));
  EXPECT_THAT(activations, Not(Contains(HasSubstr("parallel.zero"))));
  auto options = plain_options();
  options.parallel.zero = 0;
  const auto states = memory_advice(options, mostly(MemoryKind::kOptimizerState));
  EXPECT_THAT(states, Contains(HasSubstr("parallel.zero = 1 (now 0)")));
  EXPECT_THAT(states, Contains(HasSubstr("[model.lora]")));
  EXPECT_THAT(states, Not(Contains(HasSubstr("recompute"))));
}

TEST(MemoryAdvice, NamesNothingThatIsInUse) {
  auto options = plain_options();
  options.recompute.policy = RecomputePolicy::kFull;
  options.train.micro_batch = 1;
  const auto advice = memory_advice(options, mostly(MemoryKind::kActivation));
  EXPECT_THAT(advice, Not(Contains(HasSubstr("recompute.policy"))));
  EXPECT_THAT(advice, Not(Contains(HasSubstr("train.micro_batch"))));
  EXPECT_THAT(memory_advice(options, mostly(MemoryKind::kInput)), IsEmpty());
}

// What this build refuses is no advice: every change passes the checks of a run file.
TEST(MemoryAdvice, NamesNothingThatIsRefused) {
  auto options = plain_options();
  options.optimizer.offload = true;
  Problems problems;
  check_supported(options, problems);
  const bool refused = !problems.empty();
  const auto advice = memory_advice(plain_options(), mostly(MemoryKind::kOptimizerState));
  const auto offered = Contains(HasSubstr("optimizer.offload"));
  if (refused) {
    EXPECT_THAT(advice, Not(offered));
  } else {
    EXPECT_THAT(advice, offered);
  }
}

TEST(MemoryWords, OnlyErrorsThatMeanIt) {
  EXPECT_EQ(out_of_memory_words(Error("something else")), "");
  EXPECT_THAT(out_of_memory_words(std::bad_alloc()),
              HasSubstr("out of memory: rank 0, other: memory that is no tensor's"));
  EXPECT_EQ(peaks_text({3 << 20, 1 << 30}), "rank 0 3.0 MiB, rank 1 1.00 GiB");
}

}  // namespace
}  // namespace triptych
