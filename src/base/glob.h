#pragma once

#include <string_view>

namespace triptych {

/// Shell-style pattern: `*` any text, `?` one character.
bool glob_match(std::string_view pattern, std::string_view text);

}  // namespace triptych
