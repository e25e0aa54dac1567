#pragma once

#include <span>
#include <string>
#include <string_view>

namespace triptych {

/// Insertions, deletions, replacements and swaps of neighbours that turn one word into the other.
int edit_distance(std::string_view a, std::string_view b);

/// The candidate that `name` is most likely a slip of, or "" when none is near (more than a third
/// of the letters differ; two slips are always allowed where one word has four letters or more).
std::string nearest_name(std::string_view name, std::span<const std::string> candidates);

/// "a, b and c"
std::string join_names(std::span<const std::string> names, std::string_view last = " and ");

}  // namespace triptych
