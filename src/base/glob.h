#pragma once

#include <string_view>

namespace triptych {

/// Shell-style pattern: `*` any text, `?` one character, `[13]`, `[0-4]`, `[!0]` one of these or
/// not.
bool glob_match(std::string_view pattern, std::string_view text);

}  // namespace triptych
