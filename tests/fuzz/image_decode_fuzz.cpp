// A picture file from anywhere: whatever comes, either pixels of the size that the header promised
// or a DataError that begins with the file's name. The pixel limit keeps a run within memory.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/error.h"
#include "check.h"
#include "data/media/image.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace triptych;
  const auto bytes = std::as_bytes(std::span(data, size));
  const ImageLimits limits{.max_pixels = 1 << 18};
  try {
    const auto info = probe_image(bytes, "fuzz", limits);
    check(info.size.pixels() > 0 && info.size.pixels() <= limits.max_pixels);
    const auto alpha = size % 2 == 0 ? AlphaRule::kDrop : AlphaRule::kWhite;
    const auto image = decode_image(bytes, "fuzz", alpha, limits);
    check(image.size == info.size);
    check(image.pixels.size() == static_cast<size_t>(info.size.pixels()) * 3);
  } catch (const DataError& error) {
    check(std::string_view(error.what()).starts_with("fuzz: "));
  }
  return 0;
}
