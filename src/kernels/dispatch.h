#pragma once

// What the operators' files share: calling a registered operator, and memory as the CPU kernels
// take it. Internal to this folder.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <cstdint>
#include <type_traits>

#include "kernels/cpu/bf16.h"

#ifndef INTRA_OP_PARALLEL
#error "at::parallel_for would run on one thread: compile with -fopenmp"
#endif

namespace triptych {

/// The operator triptych::`name`, looked up once; its signature must be that of the schema.
template <class Signature>
c10::TypedOperatorHandle<Signature> find_operator(const char* name) {
  return c10::Dispatcher::singleton()
      .findSchemaOrThrow((std::string("triptych::") + name).c_str(), "")
      .template typed<Signature>();
}

/// Whether the CPU kernels take these dtypes; fp64 and fp16 go to the reference.
inline bool has_cpu_kernel(const at::Tensor& x) {
  return x.scalar_type() == at::kBFloat16 || x.scalar_type() == at::kFloat;
}

template <class T>
using StorageOf = std::conditional_t<std::is_same_v<T, cpu::Bf16>, at::BFloat16, T>;

template <class T>
const T* read(const at::Tensor& x) {
  return reinterpret_cast<const T*>(x.const_data_ptr<StorageOf<T>>());
}
template <class T>
T* write(const at::Tensor& x) {
  return reinterpret_cast<T*>(x.mutable_data_ptr<StorageOf<T>>());
}
/// Null for an undefined tensor.
template <class T>
const T* read_or_null(const at::Tensor& x) {
  return x.defined() ? read<T>(x) : nullptr;
}

/// Calls body with a value of the element type that stands for x's dtype.
template <class Body>
auto with_element_type(const at::Tensor& x, Body&& body) {
  return x.scalar_type() == at::kBFloat16 ? body(cpu::Bf16{}) : body(float{});
}

/// Rows a thread should have at least, so that small tensors do not pay for waking threads.
inline int64_t grain_rows(int64_t elements_per_row) {
  return std::max<int64_t>(1, 16384 / std::max<int64_t>(1, elements_per_row));
}

}  // namespace triptych
