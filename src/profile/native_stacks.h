#pragma once

// Who called an operator, as a C++ program can tell: the native frames of those that took long.
// Kineto's own `with_stack` knows frames of Python alone.

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace triptych {

/// An operator that took at least `kSlowOperatorNs`.
struct SlowOperator {
  std::string name;
  int64_t thread = 0;  ///< of the system
  int64_t begin_ns = 0, end_ns = 0;
  uint32_t stack = 0;
};

/// What a window gathered.
struct NativeStacks {
  std::vector<SlowOperator> operators;       ///< in the order in which they ended
  std::vector<std::vector<void*>> stacks{};  ///< return addresses, innermost first; 0: none
};

constexpr int64_t kSlowOperatorNs = 100000;
constexpr int64_t kLargeAllocation = int64_t{64} << 10;

/// Begins to watch the operators of this thread and of those that work for it (backward). One at a
/// time; an operator costs a look at the clock twice, a slow one also some microseconds.
void start_native_stacks();
/// On the same thread.
NativeStacks stop_native_stacks();

/// For start_memory_recording: the stack of an allocation of at least `kLargeAllocation`, else 0.
uint32_t stack_of_allocation(int64_t bytes);

/// Stacks in words: "inner;outer;...", at most 32 frames, each address symbolised once. Frames
/// between the operator (the allocation) and the observer are left out.
class StackNames {
 public:
  explicit StackNames(const NativeStacks& stacks);
  /// A JSON string; "" of stack 0.
  const std::string& json(uint32_t stack) const;

 private:
  std::vector<std::string> json_;
};

/// Kineto's events as text with `"Call stack"` among the arguments of the operators given. `put`
/// gets the text in pieces. @param base_ns  of the text's times. @return how many found their
/// event.
size_t put_with_stacks(std::string_view events, int64_t base_ns,
                       const std::vector<SlowOperator>& operators, const StackNames& names,
                       const std::function<void(std::string_view)>& put);

}  // namespace triptych
