#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "insight/trace.h"

namespace triptych::insight {

/// Class of device work by the name of the kernel: communication, memory, sync or compute.
Work device_work(std::string_view name);

/// Class of a record on the host. Operators that only carry others (the engine's wrappers of
/// backward nodes) and those that enqueue a collective count as nothing themselves.
Work host_work(std::string_view name, Category category);

/// True for a wrapper whose own time is that of what runs inside.
bool is_wrapper(std::string_view name);

enum class KernelClass : uint8_t {
  kAttention,
  kGemm,
  kConv,
  kNorm,
  kSoftmax,
  kEmbedding,
  kOptimizer,
  kElementwise,
  kReduce,
  kCopy,
  kCommunication,
  kMemory,
  kSync,
  kOther
};
std::string_view kernel_class_name(KernelClass c);

/// Finer class for display, by the first word that matches. Also fits names of operators.
KernelClass kernel_class(std::string_view name);

/// A kernel's name without template and argument lists and without its return type, at most 120
/// characters.
std::string short_name(std::string_view name);

}  // namespace triptych::insight
