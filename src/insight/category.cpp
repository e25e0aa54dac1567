#include <array>

#include "insight/event_parser.h"
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

Category category_of(std::string_view cat) {
  struct Pair {
    std::string_view text;
    Category category;
  };
  static constexpr Pair kPairs[] = {
      {"cpu_op", Category::kCpuOp},
      {"kernel", Category::kKernel},
      {"cuda_runtime", Category::kRuntime},
      {"user_annotation", Category::kUserAnnotation},
      {"mm_comm", Category::kCollective},
      {"module", Category::kModule},
      {"python_function", Category::kPython},
      {"gpu_memcpy", Category::kMemcpy},
      {"gpu_memset", Category::kMemset},
      {"cuda_driver", Category::kDriver},
      {"cuda_sync", Category::kSync},
      {"gpu_user_annotation", Category::kGpuUserAnnotation},
      {"overhead", Category::kOverhead},
      {"Trace", Category::kSpan},
      // what older profilers and other vendors write
      {"Kernel", Category::kKernel},
      {"Operator", Category::kCpuOp},
      {"Memcpy", Category::kMemcpy},
      {"Memset", Category::kMemset},
      {"Runtime", Category::kRuntime},
      {"runtime", Category::kRuntime},
      {"hip_runtime", Category::kRuntime},
      {"privateuse1_runtime", Category::kRuntime},
      {"privateuse1_driver", Category::kDriver},
      {"mtia_runtime", Category::kRuntime},
      {"xpu_runtime", Category::kRuntime},
      {"user_scope", Category::kUserAnnotation},
  };
  for (const auto& pair : kPairs) {
    if (pair.text == cat) return pair.category;
  }
  return Category::kOther;
}

}  // namespace triptych::insight
