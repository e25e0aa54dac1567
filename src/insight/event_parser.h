#pragma once

#include <cstdint>

#include "insight/event_sink.h"

namespace triptych::insight {

enum class ParseStatus {
  kOk,
  kShort,  ///< the text ends inside the event: come again with more
  kBad,    ///< not an event
};

/// Reads the object at `p` (its '{') into `sink`; nothing is stored unless the status is kOk.
/// @param offset  of `p` in the whole text
/// @param p       moved behind the object when kOk
ParseStatus parse_event(const char*& p, const char* end, uint64_t offset, EventSink& sink);

/// True when the object at `p` is whole and has the member `ph`; used to check a cut.
ParseStatus looks_like_event(const char* p, const char* end);

Category category_of(std::string_view cat);

}  // namespace triptych::insight
