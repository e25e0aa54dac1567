// A TOML text from anywhere: either a table or a UsageError with its place.
#include "base/error.h"
#include "base/option_toml.h"
#include "check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace triptych;
  try {
    parse_toml(as_text(data, size), "fuzz");
  } catch (const UsageError& error) {
    check(std::string_view(error.what()).starts_with("fuzz:"));
  }
  return 0;
}
