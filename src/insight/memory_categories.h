#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <string>

namespace triptych::insight {

/// How many categories of memory are told apart. A trace may name any number of them, and each
/// costs a curve.
constexpr size_t kMostCategories = 16;
/// What the categories beyond are shown as, together.
inline const std::string kOtherCategory = "other";

/// The categories that are shown by their own names: the largest. Names that a table has for its
/// own columns are never among them.
class ShownCategories {
 public:
  /// @param bytes  of every category, as much as decides which are large
  explicit ShownCategories(const std::map<std::string, int64_t>& bytes);

  /// The name itself, or "other".
  const std::string& shown_as(const std::string& category) const {
    return shown_.contains(category) ? category : kOtherCategory;
  }

 private:
  std::set<std::string> shown_;
};

/// Bytes by the names that are shown.
std::map<std::string, int64_t> shown_sums(const std::map<std::string, int64_t>& bytes);

}  // namespace triptych::insight
