#include "cli/version.h"

#include "base/format.h"
#include "base/json.h"
#include "cli/version_info.h"

namespace triptych {
namespace {

TorchInfo (*read_torch_info)() = nullptr;

}  // namespace

void set_torch_info(TorchInfo (*read)()) { read_torch_info = read; }

TorchInfo torch_info() { return read_torch_info == nullptr ? TorchInfo{} : read_torch_info(); }

std::string version_text() {
  const TorchInfo torch = torch_info();
  std::string text =
      fmt::format("triptych {} ({})\n", version_info::kVersion, version_info::commit());
  if (torch.version.empty()) return text;
  text += fmt::format("libtorch {}, CPU capability {}", torch.version, torch.cpu_capability);
  if (!torch.cuda.empty()) text += fmt::format(", CUDA {}", torch.cuda);
  if (!torch.nccl.empty()) text += fmt::format(", NCCL {}", torch.nccl);
  return text + "\n";
}

std::string version_json() {
  const TorchInfo torch = torch_info();
  const auto text_or_null = [](const std::string& text) {
    return text.empty() ? Json(nullptr) : Json(text);
  };
  return dump_json({{"version", version_info::kVersion},
                    {"commit", version_info::commit()},
                    {"libtorch", text_or_null(torch.version)},
                    {"cpu_capability", text_or_null(torch.cpu_capability)},
                    {"cuda", text_or_null(torch.cuda)},
                    {"nccl", text_or_null(torch.nccl)}}) +
         "\n";
}

}  // namespace triptych
