// A file of training records from anywhere: spans lie inside it and do not overlap, and each record
// is a conversation with an answer, or a DataError with its place.
#include "base/error.h"
#include "check.h"
#include "data/record_file.h"
#include "data/records.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace triptych;
  const auto text = as_text(data, size);
  const auto index = index_records(text, "fuzz");
  uint64_t before = 0;
  for (const auto& span : index.spans) {
    check(span.begin >= before && span.begin + span.length <= size);
    before = span.begin + span.length;
    try {
      const auto conversation = parse_record(text.substr(span.begin, span.length), "fuzz");
      check(!conversation.messages.empty());
    } catch (const DataError& error) {
      check(std::string_view(error.what()).starts_with("fuzz"));
    }
  }
  return 0;
}
