#pragma once

#include <string_view>

namespace triptych {

/// The built-in template qwen2_5_vl as a Jinja text of ours, for the folder of a model that is made
/// from nothing: with it transformers' apply_chat_template gives the same strings.
std::string_view qwen2_5_vl_jinja();

}  // namespace triptych
