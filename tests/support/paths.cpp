#include "support/paths.h"

namespace triptych {

std::string source_dir() { return SOURCE_DIR; }
std::string triptych_command() { return BUILD_DIR "/triptych"; }
std::string torch_dir() { return TORCH_DIR; }

}  // namespace triptych
