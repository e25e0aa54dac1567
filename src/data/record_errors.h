#pragma once

// What a record should have been: messages of its readers.

#include <string>
#include <string_view>

#include "base/json.h"

namespace triptych {

/// The first bytes of UTF-8 text, cut between characters.
std::string cut_text(const std::string& text, size_t bytes);

/// The member, or nothing where it is null or not there. The object must be one.
const Json* member(const Json& object, std::string_view key);

/// Throws DataError "origin: field: found ...; expected ...".
class RecordErrors {
 public:
  explicit RecordErrors(std::string_view origin) : origin_(origin) {}
  const std::string& origin() const { return origin_; }

  [[noreturn]] void bad(std::string_view field, const Json* found, std::string_view expected) const;
  [[noreturn]] void bad_words(std::string_view field, std::string_view found,
                              std::string_view expected) const;
  const std::string& string_at(const Json* value, std::string_view field) const;

 private:
  std::string origin_;
};

}  // namespace triptych
