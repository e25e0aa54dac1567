// A tokenizer.json from anywhere: either a tokenizer that encodes and decodes, or a DataError with
// its place.
#include <optional>

#include "base/error.h"
#include "check.h"
#include "data/text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace triptych;
  std::optional<Tokenizer> tokenizer;
  try {
    tokenizer = Tokenizer::from_json(as_text(data, size), "fuzz");
  } catch (const DataError& error) {
    check(std::string_view(error.what()).starts_with("fuzz"));
    return 0;
  }
  try {
    for (const int32_t id : tokenizer->encode("ab a<x> \xc3\xa9 1"))
      check(id >= 0 && id < tokenizer->size());
  } catch (const DataError&) {
    // a byte that the vocabulary lacks
  }
  return 0;
}
