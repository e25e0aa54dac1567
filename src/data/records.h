#pragma once

// One record of any supported format to the normal form. See docs/formats.md for the formats.

#include <string>
#include <string_view>

#include "base/json.h"
#include "data/text/conversation.h"

namespace triptych {

/// `data.*.format`. kAuto looks at each record's own keys; the others also refuse what is not
/// theirs.
enum class RecordFormat {
  kAuto,
  kLlava,     ///< conversations of from/value; `image` or `video`, tags in the text
  kShareGpt,  ///< conversations or messages with any tags, `images` and `videos` columns, pairs
  kMessages,  ///< messages of role/content; parts, or strings with columns
};

/// @throws UsageError naming the allowed words.
RecordFormat parse_record_format(std::string_view word);

/// Column and tag names where a file has its own; empty: the usual ones are recognised.
struct RecordNames {
  std::string messages, role, content;       // columns and keys of a turn
  std::string user, assistant, system_role;  // values of the role
  std::string observation, function_call;    // the same
  std::string system, images, videos;        // columns
};

/// A record's conversation: roles are system, user, assistant, tool; media stand where their tags
/// are, paths as written (`file://` taken off).
///
/// Turns: at most one system turn, first, or from the system column; then user (or tool) and
/// assistant by turns, an assistant turn last. With kMessages, or kAuto on role/content records,
/// assistant turns may follow one another, and media without any tag go in front of the first user
/// turn.
/// @param origin  place in the file, in front of every message
/// @throws DataError "origin: field: found ...; expected ...".
Conversation parse_record(std::string_view text, std::string_view origin,
                          RecordFormat format = RecordFormat::kAuto, const RecordNames& names = {});

/// The same for a record that is parsed already.
Conversation convert_record(const Json& record, std::string_view origin,
                            RecordFormat format = RecordFormat::kAuto,
                            const RecordNames& names = {});

}  // namespace triptych
