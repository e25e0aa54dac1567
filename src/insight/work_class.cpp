#include "insight/work_class.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <initializer_list>

namespace triptych::insight {
namespace {

bool has(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

bool starts_with_any(std::string_view text, std::initializer_list<std::string_view> parts) {
  return std::ranges::any_of(parts, [&](auto part) { return text.starts_with(part); });
}

struct ClassWords {
  KernelClass value;
  std::initializer_list<std::string_view> words;
};

}  // namespace

Work device_work(std::string_view name) {
  if (name.starts_with("nccl") && has(name.substr(4), "Kernel")) return Work::kCommunication;
  if (starts_with_any(name, {"rccl", "hccl", "hcom_"})) return Work::kCommunication;
  if (starts_with_any(name, {"Memcpy", "Memset", "dma"})) return Work::kMemory;
  if (has(name, "Memcpy")) return Work::kMemory;
  if (has(name, "Sync") || starts_with_any(name, {"EVENT_", "Notify_", "Stream Wait"}))
    return Work::kSync;
  return Work::kCompute;
}

bool is_wrapper(std::string_view name) {
  return starts_with_any(name, {"autograd::engine::evaluate_function", "torch::autograd::CppNode",
                                "CppNode<", "record_param_comms"});
}

Work host_work(std::string_view name, Category category) {
  if (category == Category::kCollective) return Work::kCommunication;
  if (category == Category::kUserAnnotation && name.starts_with("gloo:"))
    return Work::kCommunication;
  if (category != Category::kCpuOp) return Work::kNone;
  if (is_wrapper(name)) return Work::kNone;
  if (starts_with_any(name, {"c10d::", "nccl:", "gloo:"})) return Work::kCommunication;
  return Work::kCompute;
}

std::string_view kernel_class_name(KernelClass c) {
  static constexpr std::array<std::string_view, 14> kNames = {
      "attention",   "gemm",   "conv", "norm",          "softmax", "embedding", "optimizer",
      "elementwise", "reduce", "copy", "communication", "memory",  "sync",      "other"};
  return kNames[static_cast<size_t>(c)];
}

KernelClass kernel_class(std::string_view name) {
  switch (device_work(name)) {
    case Work::kCommunication:
      return KernelClass::kCommunication;
    case Work::kMemory:
      return KernelClass::kMemory;
    case Work::kSync:
      return KernelClass::kSync;
    default:
      break;
  }
  std::string lower(name.substr(0, 4096));
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  static const ClassWords kRows[] = {
      {KernelClass::kAttention, {"flash", "fmha", "sdpa", "attn", "attention"}},
      {KernelClass::kGemm,
       {"gemm", "cutlass", "cublas", "nvjet", "xmma", "matmul", "addmm", "bmm", "aten::mm",
        "linear", "mmbackward"}},
      {KernelClass::kConv, {"conv", "cudnn", "winograd", "implicit"}},
      {KernelClass::kNorm, {"norm", "rms"}},
      {KernelClass::kSoftmax, {"softmax"}},
      {KernelClass::kEmbedding, {"embedding", "gather", "index_select"}},
      {KernelClass::kOptimizer, {"adam", "multi_tensor", "foreach", "lamb"}},
      {KernelClass::kElementwise,
       {"elementwise", "vectorized", "unrolled", "pointwise", "aten::mul", "aten::add", "aten::sub",
        "aten::div", "silu", "gelu"}},
      {KernelClass::kReduce, {"reduce", "aten::sum", "aten::mean"}},
      {KernelClass::kCopy, {"copy", "cast", "catarray", "transpose", "aten::cat", "aten::to"}},
  };
  for (const auto& row : kRows)
    for (const auto word : row.words)
      if (has(lower, word)) return row.value;
  return KernelClass::kOther;
}

std::string short_name(std::string_view name) {
  std::string out;
  int depth = 0;
  for (size_t i = 0; i < name.size() && out.size() < 400; ++i) {
    const char c = name[i];
    // "operator<" and "->" do not open or close a list.
    if ((c == '<' || c == '(') && !(c == '(' && name.substr(i).starts_with("(anonymous"))) {
      ++depth;
    } else if ((c == '>' && i > 0 && name[i - 1] != '-') || c == ')') {
      if (depth > 0)
        --depth;
      else
        out += c;
    } else if (depth == 0) {
      out += c;
    }
  }
  if (out.starts_with("void ")) out.erase(0, 5);
  while (!out.empty() && out.back() == ' ') out.pop_back();
  if (out.empty()) out = std::string(name.substr(0, 120));
  if (out.size() > 120) out.resize(120);
  return out;
}

}  // namespace triptych::insight
