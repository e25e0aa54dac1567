#include "checkpoint/safetensors_header.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "base/error.h"

namespace triptych {
namespace {

constexpr int64_t kMostHeaderBytes = 100'000'000;  // the reference implementation's limit
constexpr size_t kMostDims = 64;

struct TypeName {
  StoredType type;
  std::string_view name;
  int64_t bytes;
};
constexpr std::array kTypes = {
    TypeName{StoredType::kBool, "BOOL", 1},      TypeName{StoredType::kU8, "U8", 1},
    TypeName{StoredType::kI8, "I8", 1},          TypeName{StoredType::kF8E4M3, "F8_E4M3", 1},
    TypeName{StoredType::kF8E5M2, "F8_E5M2", 1}, TypeName{StoredType::kF8E8M0, "F8_E8M0", 1},
    TypeName{StoredType::kI16, "I16", 2},        TypeName{StoredType::kU16, "U16", 2},
    TypeName{StoredType::kF16, "F16", 2},        TypeName{StoredType::kBF16, "BF16", 2},
    TypeName{StoredType::kI32, "I32", 4},        TypeName{StoredType::kU32, "U32", 4},
    TypeName{StoredType::kF32, "F32", 4},        TypeName{StoredType::kC64, "C64", 8},
    TypeName{StoredType::kI64, "I64", 8},        TypeName{StoredType::kU64, "U64", 8},
    TypeName{StoredType::kF64, "F64", 8}};

const TypeName& entry_of(StoredType type) {
  return *std::find_if(kTypes.begin(), kTypes.end(),
                       [type](const TypeName& entry) { return entry.type == type; });
}

/// A name from the file as messages show it: a hostile one neither floods nor garbles a terminal.
std::string shown(std::string_view name) {
  constexpr size_t kMost = 200;
  std::string text = "'";
  for (const char c : name.substr(0, kMost)) {
    text += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  }
  if (name.size() > kMost) text += "...";
  return text + "'";
}

std::string shown(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (const int64_t size : shape) {
    if (text.size() > 1) text += ", ";
    text += std::to_string(size);
  }
  return text + "]";
}

/// Elements of a shape; nothing when the product (of a tensor without empty dims) overflows.
std::optional<int64_t> checked_numel(const std::vector<int64_t>& shape) {
  int64_t strides = 1, numel = 1;
  for (const int64_t size : shape) {
    if (__builtin_mul_overflow(strides, std::max<int64_t>(size, 1), &strides)) return std::nullopt;
    numel *= size;  // never beyond `strides`
  }
  return numel;
}

std::optional<int64_t> checked_bytes(const StoredTensor& tensor) {
  const auto numel = checked_numel(tensor.shape);
  int64_t bytes = 0;
  if (!numel || __builtin_mul_overflow(*numel, stored_type_bytes(tensor.type), &bytes)) {
    return std::nullopt;
  }
  return bytes;
}

/// Takes the events of the JSON reader; the header has three levels and few kinds of values, so
/// whatever else comes is refused where it stands and nothing deep or large is ever built.
class HeaderEvents {
 public:
  using Number = nlohmann::json;

  explicit HeaderEvents(std::string_view origin) : origin_(origin) {}

  SafetensorsHeader take() { return std::move(header_); }

  bool start_object(size_t) {
    ++depth_;
    if (depth_ == 1) return true;
    if (depth_ > 2 || array_) refuse("an object");
    if (metadata_) {
      require<DataError>(!saw_metadata_, origin_, ": the header holds '__metadata__' twice");
      saw_metadata_ = true;
    } else {
      require<DataError>(names_.insert(name_).second, where(), " occurs twice in the header");
      tensor_ = {.name = name_};
      seen_ = {};
    }
    return true;
  }

  bool end_object() {
    if (depth_-- == 2 && !metadata_) finish_tensor();
    return true;
  }

  bool key(std::string& text) {
    if (depth_ == 1) {
      name_ = std::move(text);
      metadata_ = name_ == "__metadata__";
      return true;
    }
    field_ = std::move(text);
    if (metadata_) {
      require<DataError>(metadata_keys_.insert(field_).second, origin_, ": '__metadata__' holds ",
                         shown(field_), " twice");
      return true;
    }
    const auto at = std::find(kFields.begin(), kFields.end(), field_);
    require<DataError>(at != kFields.end(), where(), " has the field ", shown(field_),
                       "; allowed are dtype, shape, data_offsets");
    auto& seen = seen_[static_cast<size_t>(at - kFields.begin())];
    require<DataError>(!seen, where(), " has the field ", shown(field_), " twice");
    seen = true;
    return true;
  }

  bool string(std::string& text) {
    if (depth_ == 2 && metadata_) {
      header_.metadata.emplace_back(field_, std::move(text));
    } else if (depth_ == 2 && field_ == "dtype" && !array_) {
      const auto type = stored_type_from_name(text);
      require<DataError>(type.has_value(), where(), " has the dtype ", shown(text), "; known are ",
                         known_types());
      tensor_.type = *type;
    } else {
      refuse("a string");
    }
    return true;
  }

  bool start_array(size_t) {
    if (array_ || depth_ != 2 || metadata_ || field_ == "dtype") refuse("a list");
    array_ = true;
    offsets_ = 0;
    return true;
  }
  bool end_array() {
    array_ = false;
    require<DataError>(field_ != "data_offsets" || offsets_ == 2, where(), ": data_offsets has ",
                       offsets_, " numbers, 2 are expected");
    return true;
  }

  bool number_unsigned(uint64_t value) {
    if (!array_) refuse("a number");
    require<DataError>(value <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max()), where(),
                       ": ", field_, " holds ", value, ", which no file can");
    const auto number = static_cast<int64_t>(value);
    if (field_ == "shape") {
      require<DataError>(tensor_.shape.size() < kMostDims, where(), " has more than ", kMostDims,
                         " dims");
      tensor_.shape.push_back(number);
    } else {
      (offsets_ == 0 ? tensor_.begin : tensor_.end) = number;
      ++offsets_;
      require<DataError>(offsets_ <= 2, where(), ": data_offsets has more than 2 numbers");
    }
    return true;
  }
  bool number_integer(int64_t value) {
    if (!array_) refuse("a number");
    fail<DataError>(where(), ": ", field_, " holds the negative number ", value);
  }
  bool number_float(double, const std::string& text) {
    refuse("the number " + shown(text) + ", not a whole one of 64 bits,");
  }
  bool null() { refuse("null"); }
  bool boolean(bool) { refuse("a truth value"); }
  bool binary(std::vector<uint8_t>&) { refuse("binary data"); }

  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception& error) {
    std::string what = error.what();
    if (const size_t end = what.find("] "); end != std::string::npos) what.erase(0, end + 2);
    if (what.size() > 300) what.resize(300);
    fail<DataError>(origin_, ": the header is not valid JSON at byte ", position + 8, ": ", what);
  }

 private:
  static constexpr std::array<std::string_view, 3> kFields = {"dtype", "shape", "data_offsets"};

  std::string where() const { return std::string(origin_) + ": tensor " + shown(name_); }

  [[noreturn]] void refuse(const std::string& what) const {
    if (depth_ == 0) fail<DataError>(origin_, ": the header is ", what, ", an object is expected");
    const std::string place = metadata_ ? std::string(origin_) + ": '__metadata__'" : where();
    fail<DataError>(
        place, " holds ", what, depth_ < 2 ? "" : " at " + shown(field_), "; expected is ",
        metadata_ ? "an object of strings"
                  : "{\"dtype\": name, \"shape\": [sizes], \"data_offsets\": [begin, end]}");
  }

  static std::string known_types() {
    std::string text;
    for (const auto& entry : kTypes) text += (text.empty() ? "" : " ") + std::string(entry.name);
    return text;
  }

  void finish_tensor() {
    for (size_t i = 0; i < kFields.size(); ++i) {
      require<DataError>(seen_[i], where(), " has no ", kFields[i]);
    }
    require<DataError>(tensor_.begin <= tensor_.end, where(), " ends at byte ", tensor_.end,
                       ", before it begins at ", tensor_.begin);
    const auto bytes = checked_bytes(tensor_);
    require<DataError>(bytes.has_value(), where(), ": the shape ", shown(tensor_.shape),
                       " overflows 64 bits");
    require<DataError>(tensor_.bytes() == *bytes, where(), " takes ", tensor_.bytes(), " bytes, ",
                       stored_type_name(tensor_.type), " ", shown(tensor_.shape), " needs ",
                       *bytes);
    header_.tensors.push_back(std::move(tensor_));
  }

  std::string_view origin_;
  SafetensorsHeader header_;
  std::unordered_set<std::string> names_, metadata_keys_;
  std::string name_, field_;
  StoredTensor tensor_;
  std::array<bool, 3> seen_{};
  int depth_ = 0, offsets_ = 0;
  bool metadata_ = false, saw_metadata_ = false, array_ = false;
};

uint64_t little_endian_64(std::string_view bytes) {
  uint64_t value = 0;
  for (int i = 7; i >= 0; --i) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

/// No gaps, no overlaps, and the file ends where the last tensor does.
void check_cover(SafetensorsHeader& header, int64_t file_bytes, std::string_view origin) {
  auto& tensors = header.tensors;
  std::stable_sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  int64_t at = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const auto& tensor = tensors[i];
    require<DataError>(tensor.begin >= at, origin, ": tensor ", shown(tensor.name),
                       " begins at byte ", tensor.begin, " of the data, inside ",
                       i == 0 ? "" : shown(tensors[i - 1].name), ", which ends at ", at);
    require<DataError>(tensor.begin <= at, origin, ": tensor ", shown(tensor.name),
                       " begins at byte ", tensor.begin, " of the data and leaves a hole after ",
                       at);
    at = tensor.end;
  }
  const int64_t data = file_bytes - header.data_begin();
  require<DataError>(at <= data, origin, ": the file is truncated: its header describes ",
                     header.data_begin() + at, " bytes, the file has ", file_bytes,
                     at > 0 ? "; the last tensor is " + shown(tensors.back().name) : "");
  require<DataError>(at == data, origin, ": ", data - at,
                     " bytes follow the last tensor; the header describes ",
                     header.data_begin() + at, " bytes, the file has ", file_bytes);
}

}  // namespace

std::string_view stored_type_name(StoredType type) { return entry_of(type).name; }

std::optional<StoredType> stored_type_from_name(std::string_view name) {
  for (const auto& entry : kTypes) {
    if (entry.name == name) return entry.type;
  }
  return std::nullopt;
}

int64_t stored_type_bytes(StoredType type) { return entry_of(type).bytes; }

int64_t StoredTensor::numel() const { return bytes() / stored_type_bytes(type); }

SafetensorsHeader parse_safetensors_header(std::string_view start, int64_t file_bytes,
                                           std::string_view origin) {
  require<DataError>(file_bytes >= 8 && start.size() >= 8, origin, ": has ", file_bytes,
                     " bytes; a safetensors file begins with 8 that say how long its header is");
  const uint64_t length = little_endian_64(start);
  require<DataError>(length <= static_cast<uint64_t>(kMostHeaderBytes), origin,
                     ": says its header has ", length, " bytes, at most ", kMostHeaderBytes,
                     " are allowed; is this a safetensors file?");
  require<DataError>(static_cast<int64_t>(length) <= file_bytes - 8 && length <= start.size() - 8,
                     origin, ": the file is truncated: its header alone needs ", length + 8,
                     " bytes, the file has ", file_bytes);
  const std::string_view text = start.substr(8, length);
  require<DataError>(!text.empty() && text.front() == '{', origin,
                     ": the header does not begin with '{'; is this a safetensors file?");

  HeaderEvents events(origin);
  nlohmann::json::sax_parse(text.begin(), text.end(), &events);
  SafetensorsHeader header = events.take();
  header.text = text;
  check_cover(header, file_bytes, origin);
  return header;
}

SafetensorsHeader make_safetensors_header(
    std::vector<StoredTensor> tensors, std::vector<std::pair<std::string, std::string>> metadata) {
  const auto quoted = [](const std::string& text) { return nlohmann::json(text).dump(); };
  SafetensorsHeader header{.tensors = std::move(tensors), .metadata = std::move(metadata)};
  std::string& text = header.text;
  const auto begin_member = [&] { text += text.empty() ? '{' : ','; };

  if (!header.metadata.empty()) {
    text = "{\"__metadata__\":{";
    for (const auto& [key, value] : header.metadata) {
      if (text.back() != '{') text += ',';
      text += quoted(key) + ':' + quoted(value);
    }
    text += '}';
  }
  std::unordered_set<std::string_view> names;
  int64_t at = 0;
  for (auto& tensor : header.tensors) {
    require(names.insert(tensor.name).second, "safetensors: tensor ", shown(tensor.name),
            " is to be written twice");
    const bool whole = std::all_of(tensor.shape.begin(), tensor.shape.end(),
                                   [](int64_t size) { return size >= 0; });
    const auto bytes = whole ? checked_bytes(tensor) : std::nullopt;
    tensor.begin = at;
    require(bytes.has_value() && !__builtin_add_overflow(at, *bytes, &at), "safetensors: tensor ",
            shown(tensor.name), " cannot have the shape ", shown(tensor.shape));
    tensor.end = at;
    begin_member();
    std::string shape;
    for (const int64_t size : tensor.shape) {
      shape += (shape.empty() ? "" : ",") + std::to_string(size);
    }
    text += quoted(tensor.name) + ":{\"dtype\":\"" + std::string(stored_type_name(tensor.type)) +
            "\",\"shape\":[" + shape + "],\"data_offsets\":[" + std::to_string(tensor.begin) + ',' +
            std::to_string(tensor.end) + "]}";
  }
  text += text.empty() ? "{}" : "}";
  text.resize((text.size() + 7) / 8 * 8, ' ');
  require(static_cast<int64_t>(text.size()) <= kMostHeaderBytes, "safetensors: ", names.size(),
          " tensors need a header of ", text.size(), " bytes, at most ", kMostHeaderBytes,
          " are allowed; write several files");
  return header;
}

}  // namespace triptych
