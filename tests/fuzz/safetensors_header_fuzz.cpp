// The header of a safetensors file from anywhere: whatever comes, either a header that holds
// together or a DataError.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "check.h"
#include "checkpoint/safetensors_header.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto file = as_text(data, size);
  triptych::SafetensorsHeader header;
  try {
    header = triptych::parse_safetensors_header(file, static_cast<int64_t>(size), "fuzz");
  } catch (const triptych::DataError& error) {
    check(std::string_view(error.what()).starts_with("fuzz: "));
    return 0;
  }
  check(header.file_bytes() == static_cast<int64_t>(size));
  int64_t at = 0;
  for (const auto& tensor : header.tensors) {
    int64_t bytes = triptych::stored_type_bytes(tensor.type);
    for (const int64_t length : tensor.shape) bytes *= length;
    check(tensor.begin == at && tensor.bytes() == bytes);
    at = tensor.end;
  }
  // What is read can be written, and reads the same.
  const auto again = triptych::make_safetensors_header(header.tensors, header.metadata);
  std::string copy(8, '\0');
  for (size_t i = 0; i < 8; ++i) copy[i] = static_cast<char>(again.text.size() >> 8 * i & 0xff);
  copy += again.text;
  const auto reread = triptych::parse_safetensors_header(copy, again.file_bytes(), "fuzz");
  check(reread.tensors.size() == header.tensors.size() && reread.metadata == header.metadata);
  for (size_t i = 0; i < header.tensors.size(); ++i) {
    check(reread.tensors[i].name == header.tensors[i].name &&
          reread.tensors[i].shape == header.tensors[i].shape);
  }
  return 0;
}
