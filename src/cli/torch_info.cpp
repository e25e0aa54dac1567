#include "cli/torch_info.h"

#include <ATen/Context.h>
#include <ATen/Version.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <torch/version.h>

#include "base/format.h"

namespace triptych {

TorchInfo read_torch_info_from_library() {
  TorchInfo info;
  info.version = TORCH_VERSION;
  info.cpu_capability = at::get_cpu_capability();
  const auto& hooks = at::detail::getCUDAHooks();
  if (hooks.hasCUDA()) {
    const auto version = hooks.versionCUDART();
    info.cuda = fmt::format("{}.{}", version / 1000, version % 1000 / 10);
    for (int i = 0; i < hooks.deviceCount(); ++i) info.gpus.push_back(fmt::format("cuda:{}", i));
  }
  return info;
}

}  // namespace triptych
