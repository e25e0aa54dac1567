#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace triptych {

/// Element types of a safetensors file; those of less than a byte are refused by name.
enum class StoredType {
  kBool,
  kU8,
  kI8,
  kF8E4M3,
  kF8E5M2,
  kF8E8M0,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kC64,
  kI64,
  kU64,
  kF64,
};

/// "BF16", as in the file.
std::string_view stored_type_name(StoredType type);
std::optional<StoredType> stored_type_from_name(std::string_view name);
int64_t stored_type_bytes(StoredType type);

/// One tensor of a file. [begin, end) are bytes, counted from the end of the header.
struct StoredTensor {
  std::string name;
  StoredType type = StoredType::kF32;
  std::vector<int64_t> shape;
  int64_t begin = 0, end = 0;

  int64_t numel() const;
  int64_t bytes() const { return end - begin; }
};

/// What stands before the data.
struct SafetensorsHeader {
  std::vector<StoredTensor> tensors;  ///< in the order of their data
  std::vector<std::pair<std::string, std::string>>
      metadata;  ///< `__metadata__`, in the file's order
  /// The header's JSON with its padding, byte for byte, so that a rewritten file can equal the file
  /// it came from. Empty: not made yet.
  std::string text;

  int64_t data_begin() const { return 8 + static_cast<int64_t>(text.size()); }
  int64_t data_bytes() const { return tensors.empty() ? 0 : tensors.back().end; }
  int64_t file_bytes() const { return data_begin() + data_bytes(); }
};

/// Reads and checks the header of a file of `file_bytes` bytes that starts with `start` (at least
/// the header; the whole mapped file will do). Source: safetensors' format description.
///
/// Fatal, each with the place, the tensor's name, what was found and what is allowed: a file of
/// less than 8 bytes; a header beyond 100 MB or the end of the file; text that is not one flat JSON
/// object in valid UTF-8; a name that occurs twice; an unknown dtype; a shape whose product
/// overflows; offsets out of order, overlapping, with holes, or of another size than shape × item;
/// data that ends before or behind the end of the file (a truncated file names both sizes).
/// Executes nothing, allocates no more than a small multiple of the header.
/// @throws DataError
SafetensorsHeader parse_safetensors_header(std::string_view start, int64_t file_bytes,
                                           std::string_view origin);

/// Lays the tensors out one after another in the order given: sets `begin`, `end` and `text`
/// (metadata first, then the tensors in this order, padded with spaces to 8 bytes). The same input
/// gives the same bytes.
/// @throws Error when a name occurs twice or a shape is negative or too large.
SafetensorsHeader make_safetensors_header(
    std::vector<StoredTensor> tensors,
    std::vector<std::pair<std::string, std::string>> metadata = {{"format", "pt"}});

}  // namespace triptych
