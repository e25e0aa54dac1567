// Names of Qwen2.5-VL's tensors: the hub's are canonical here.

#include <string>
#include <string_view>

#include "models/qwen2_5_vl/model.h"

namespace triptych::qwen2_5_vl {

namespace {
constexpr std::string_view kLongText = "model.language_model.", kLongVision = "model.visual.";
}

std::string canonical_name(std::string_view stored) {
  if (stored.starts_with(kLongText)) return "model." + std::string(stored.substr(kLongText.size()));
  if (stored.starts_with(kLongVision))
    return "visual." + std::string(stored.substr(kLongVision.size()));
  return std::string(stored);
}

std::string module_path(std::string_view canonical) {
  if (canonical.starts_with("visual.")) return "model." + std::string(canonical);
  if (canonical.starts_with("model."))
    return std::string(kLongText) + std::string(canonical.substr(6));
  return std::string(canonical);
}

}  // namespace triptych::qwen2_5_vl
