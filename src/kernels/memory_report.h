#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/error.h"
#include "kernels/memory_ledger.h"

namespace triptych {

/// A failed allocation. The message tells the rank, the step, the layer, what was asked for, what
/// the memory held is for, and what would help; continuation lines are indented.
class OutOfMemory : public Error {
 public:
  using Error::Error;
};

/// What that message is to say of the run.
struct MemoryContext {
  int64_t rank = 0;
  /// Settings that would take less, given what is held; may be empty.
  std::function<std::vector<std::string>(const MemoryTotals&)> advice;
};
void set_memory_context(MemoryContext context);
/// Called with the message, on the thread whose allocation failed, before anything is freed. May
/// use little memory; must not throw.
void on_out_of_memory(std::function<void(const std::string& message)> call);
void set_memory_step(int64_t step);

/// "1.25 GiB", "870.3 MiB", "12.0 KiB", "96 B"
std::string memory_text(int64_t bytes);

/// Indented lines: bytes by kind, then the `most` largest pairs of kind and layer.
std::string memory_table(const MemoryTotals& totals, size_t most = 10);

/// The message of OutOfMemory.
/// @param what    that did not fit: "1.25 GiB asked for"
/// @param reason  the system's words; may be empty
std::string out_of_memory_text(const std::string& what, const std::string& reason,
                               const MemoryTotals& totals);

/// The same for a size, told to whom on_out_of_memory named as well.
std::string tell_out_of_memory(size_t bytes, const std::string& reason);

}  // namespace triptych
