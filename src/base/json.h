#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace triptych {

/// Objects keep the order in which their keys were written. Looking a key up walks the object, so
/// copy objects with very many keys (vocabularies, weight maps) into a map of your own.
using Json = nlohmann::ordered_json;

struct JsonLimits {
  size_t bytes = size_t{1} << 30;
  int depth = 64;          ///< arrays and objects inside one another
  int64_t first_line = 1;  ///< number of the text's first line, where it is a part of a file
};

/// Parses one JSON document from a source that nobody vouches for.
/// @param origin  what messages call the text, usually the path
/// @throws DataError "origin:line:column: ..." for wrong syntax, invalid UTF-8, a key that occurs
///   twice in one object, and beyond the limits.
Json parse_json(std::string_view text, std::string_view origin, const JsonLimits& limits = {});

/// The same for a file.
Json read_json(const std::filesystem::path& path, const JsonLimits& limits = {});

/// One line without spaces, or indented by `indent` blanks a level. Numbers come back bit by bit;
/// NaN and infinity become null, as JSON has no word for them.
/// @throws DataError when a string is not valid UTF-8.
std::string dump_json(const Json& value, int indent = -1);

/// The member `key` of an object. @throws DataError "origin: 'key' is missing".
const Json& json_member(const Json& object, std::string_view key, std::string_view origin);

}  // namespace triptych
