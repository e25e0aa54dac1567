// A JSON text from anywhere: either a value that survives writing and reading, or a DataError with
// its place.
#include "base/error.h"
#include "base/json.h"
#include "check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace triptych;
  try {
    const auto value = parse_json(as_text(data, size), "fuzz");
    const auto text = dump_json(value);
    check(dump_json(parse_json(text, "fuzz")) == text);
  } catch (const DataError& error) {
    check(std::string_view(error.what()).starts_with("fuzz:"));
  }
  return 0;
}
