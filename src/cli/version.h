#pragma once

#include <string>
#include <vector>

namespace triptych {

/// What libtorch says about itself and this machine. Without libtorch (tests of the command line)
/// all fields are empty.
struct TorchInfo {
  std::string version;         ///< "2.13.0"
  std::string cpu_capability;  ///< "AVX512"
  std::string cuda;            ///< "13.0", empty in a CPU build
  std::string nccl;            ///< likewise
  std::vector<std::string> gpus;
};

/// Set by main, so that what does not need libtorch does not touch it.
void set_torch_info(TorchInfo (*read)());
TorchInfo torch_info();

/// "triptych 0.1.0 (1a2b3c4)\nlibtorch 2.13.0, ...\n"
std::string version_text();
std::string version_json();

}  // namespace triptych
