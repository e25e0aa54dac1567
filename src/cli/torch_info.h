#pragma once

#include "cli/version.h"

namespace triptych {

/// Asks libtorch.
TorchInfo read_torch_info_from_library();

}  // namespace triptych
