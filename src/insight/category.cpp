#include <array>

#include "insight/trace.h"

namespace triptych::insight {

std::string_view category_name(Category category) {
  static constexpr std::array<std::string_view, 15> kNames = {"other",
                                                              "cpu_op",
                                                              "user_annotation",
                                                              "gpu_user_annotation",
                                                              "kernel",
                                                              "gpu_memcpy",
                                                              "gpu_memset",
                                                              "cuda_runtime",
                                                              "cuda_driver",
                                                              "cuda_sync",
                                                              "mm_comm",
                                                              "module",
                                                              "python_function",
                                                              "overhead",
                                                              "span"};
  return kNames[static_cast<size_t>(category)];
}

std::string_view work_name(Work work) {
  static constexpr std::array<std::string_view, 5> kNames = {"", "compute", "communication",
                                                             "memory", "sync"};
  return kNames[static_cast<size_t>(work)];
}

}  // namespace triptych::insight
