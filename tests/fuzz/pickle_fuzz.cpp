// A snapshot from anywhere: whatever comes, either plain data or a DataError.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "check.h"
#include "insight/pickle.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    (void)triptych::insight::read_pickle(as_text(data, size), "fuzz",
                                         {.values = 10000, .depth = 50});
  } catch (const triptych::DataError&) {
  }
  return 0;
}
