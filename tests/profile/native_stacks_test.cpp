#include "profile/native_stacks.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/format.h"
#include "base/json.h"
#include "kernels/cpu_allocator.h"
#include "kernels/memory_ledger.h"

namespace triptych {
namespace {

using testing::AnyOf;
using testing::HasSubstr;
using testing::Not;

std::string text_of(const StackNames& names, uint32_t stack) {
  return Json::parse(names.json(stack)).get<std::string>();
}

NativeStacks of_products(int64_t size, int count) {
  const at::Tensor a = at::ones({size, size});
  at::mm(a, a);  // loads what products need
  start_native_stacks();
  for (int i = 0; i < count; ++i) at::mm(a, a);
  return stop_native_stacks();
}

TEST(NativeStacks, AreThoseOfSlowOperatorsAlone) {
  // A busy machine may take its core from one or the other.
  EXPECT_LT(of_products(4, 100).operators.size(), 50);
  const auto stacks = of_products(700, 1);  // 0.7 GFLOP: milliseconds
  ASSERT_EQ(stacks.operators.size(), 1);
  const SlowOperator& op = stacks.operators[0];
  EXPECT_EQ(op.name, "aten::mm");
  EXPECT_EQ(op.thread, ::syscall(SYS_gettid));
  EXPECT_GE(op.end_ns - op.begin_ns, kSlowOperatorNs);
  const std::string text = text_of(StackNames(stacks), op.stack);
  EXPECT_THAT(text, HasSubstr("mm")) << "the operator's own dispatch";
  EXPECT_THAT(text, HasSubstr("__libc_start")) << "down to where the program begins";
  EXPECT_THAT(text, Not(AnyOf(HasSubstr("RecordFunction"), HasSubstr("unwind"))));
}

TEST(NativeStacks, AreThoseOfLargeAllocationsAlone) {
  install_cpu_allocator();
  start_native_stacks();
  start_memory_recording(0, stack_of_allocation);
  const at::Tensor small = at::empty({16}), large = at::empty({kLargeAllocation / 4});
  const auto recording = stop_memory_recording();
  const auto stacks = stop_native_stacks();
  ASSERT_EQ(recording.events.size(), 2);
  EXPECT_EQ(recording.events[0].stack, 0);
  ASSERT_NE(recording.events[1].stack, 0);
  const std::string text = text_of(StackNames(stacks), recording.events[1].stack);
  EXPECT_THAT(text, HasSubstr("empty"));
  EXPECT_THAT(text, Not(HasSubstr("unwind")));
}

/// An event as Kineto writes it.
std::string event(std::string_view category, std::string_view name, int64_t thread, double us,
                  double dur, std::string_view args) {
  return fmt::format(
      "\n  {{\n    \"ph\": \"X\",\n    \"cat\": \"{}\",\n    \"name\": \"{}\",\n    \"pid\": "
      "7,\n    \"tid\": {},\n    \"ts\": {:.3f},\n    \"dur\": {:.3f}\n    ,\n    \"args\": {{\n"
      "      {}\n    }}\n  }},",
      category, name, thread, us, dur, args);
}

TEST(NativeStacks, StandInTheEventThatTheyBelongTo) {
  auto stacks = of_products(700, 1);
  ASSERT_EQ(stacks.operators.size(), 1);
  SlowOperator& op = stacks.operators[0];
  op.thread = 5, op.begin_ns = 1000000000 + 300000, op.end_ns = op.begin_ns + 200000;
  const std::string args = "\"External id\": 3";
  const std::vector<std::string> events = {
      event("cpu_op", "aten::mm", 5, 100, 10, args),     // earlier, and short
      event("cpu_op", "aten::mm", 6, 299.9, 201, args),  // another thread
      event("kernel", "aten::mm", 5, 299.9, 201, args),  // no operator
      event("cpu_op", "aten::add", 5, 299.9, 201, args),
      event("cpu_op", "aten::mm", 5, 299.9, 201, args),  // this one
      event("cpu_op", "aten::mm", 5, 302.0, 199, args),  // the same name within
      event("cpu_op", "aten::mm", 5, 299.9, 201, ""),
  };
  std::string all, out;
  for (const auto& one : events) all += one;
  const StackNames names(stacks);
  EXPECT_EQ(put_with_stacks(all, 1000000000, stacks.operators, names,
                            [&](std::string_view piece) { out += piece; }),
            1);
  out.back() = ' ';  // the last comma
  const Json read = Json::parse("[" + out + "]");
  ASSERT_EQ(read.size(), events.size());
  for (size_t i = 0; i < events.size(); ++i)
    EXPECT_EQ(read[i]["args"].contains("Call stack"), i == 4) << i;
  EXPECT_EQ(read[4]["args"]["Call stack"], text_of(names, op.stack));
  EXPECT_EQ(read[4]["args"]["External id"], 3);

  out.clear();
  EXPECT_EQ(put_with_stacks(all, 0, {}, StackNames({}), [&](std::string_view p) { out += p; }), 0);
  EXPECT_EQ(out, all) << "byte by byte what Kineto wrote";
}

}  // namespace
}  // namespace triptych
