#pragma once

#include <string_view>

namespace triptych {

/// Whether a Perl-style regular expression matches the whole text. The work is limited, so that a
/// hostile pattern costs a bounded time.
/// @throws DataError "origin: ..." for a wrong pattern or one that exceeds the limit.
bool regex_full_match(std::string_view pattern, std::string_view text, std::string_view origin);

}  // namespace triptych
