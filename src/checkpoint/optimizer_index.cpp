#include "checkpoint/optimizer_index.h"

#include <algorithm>
#include <limits>

#include "base/error.h"

namespace triptych {
namespace {

constexpr const char* kFormat = "triptych-optimizer";
constexpr int64_t kVersion = 1;

int64_t product(const std::vector<int64_t>& shape) {
  int64_t numel = 1;
  for (const int64_t size : shape) numel *= size;
  return numel;
}

bool same_slice(const std::optional<TensorSlice>& a, const std::optional<TensorSlice>& b) {
  if (!a || !b) return !a && !b;
  return a->dim == b->dim && a->start == b->start && a->length == b->length;
}

int64_t number(const Json& value, const std::string& origin) {
  require<DataError>(value.is_number_integer() && value.get<int64_t>() >= 0, origin, ": ",
                     value.dump(), " stands where a number from 0 up is expected");
  return value.get<int64_t>();
}

std::string text(const Json& value, const std::string& origin) {
  require<DataError>(value.is_string(), origin, ": ", value.dump(),
                     " stands where a text is expected");
  return value.get<std::string>();
}

std::vector<int64_t> parse_shape(const Json& value, const std::string& origin) {
  require<DataError>(value.is_array(), origin, ": the shape ", value.dump(), " is not a list");
  std::vector<int64_t> shape;
  int64_t numel = 1;
  for (const auto& size : value) {
    shape.push_back(number(size, origin));
    require<DataError>(!__builtin_mul_overflow(numel, std::max<int64_t>(1, shape.back()), &numel),
                       origin, ": the shape ", value.dump(), " overflows 64 bits");
  }
  return shape;
}

StoredPiece parse_piece(const Json& json, const std::vector<int64_t>& shape,
                        const std::string& origin) {
  StoredPiece piece{.file = text(json_member(json, "file", origin), origin),
                    .tensor = text(json_member(json, "tensor", origin), origin),
                    .begin = number(json_member(json, "begin", origin), origin),
                    .end = number(json_member(json, "end", origin), origin)};
  require<DataError>(piece.file == std::filesystem::path(piece.file).filename().string(), origin,
                     ": names the file '", piece.file, "' outside its folder");
  if (json.contains("slice")) {
    const auto slice = parse_shape(json["slice"], origin);
    require<DataError>(slice.size() == 3 && slice[0] < static_cast<int64_t>(shape.size()) &&
                           slice[1] + slice[2] <= shape[slice[0]] && slice[2] > 0,
                       origin, ": '", piece.tensor, "' has the slice ", json["slice"].dump(),
                       ", which its parameter has not");
    piece.slice = TensorSlice{.dim = slice[0], .start = slice[1], .length = slice[2]};
  }
  const int64_t numel = Geometry{shape, piece.slice}.numel();
  require<DataError>(piece.begin <= piece.end && piece.end <= numel, origin, ": '", piece.tensor,
                     "' holds the elements [", piece.begin, ", ", piece.end, ") of ", numel);
  return piece;
}

Json dump_piece(const StoredPiece& piece) {
  Json json = {
      {"file", piece.file}, {"tensor", piece.tensor}, {"begin", piece.begin}, {"end", piece.end}};
  if (piece.slice) json["slice"] = {piece.slice->dim, piece.slice->start, piece.slice->length};
  return json;
}

}  // namespace

int64_t Geometry::numel() const {
  int64_t numel = 1;
  for (size_t dim = 0; dim < shape.size(); ++dim) {
    numel *= slice && static_cast<int64_t>(dim) == slice->dim ? slice->length : shape[dim];
  }
  return numel;
}

Geometry::Strides Geometry::strides() const {
  if (!slice) {
    const int64_t numel = product(shape);
    return {.inner = 1, .run = numel, .row = numel};
  }
  int64_t inner = 1;
  for (size_t dim = static_cast<size_t>(slice->dim) + 1; dim < shape.size(); ++dim) {
    inner *= shape[dim];
  }
  return {.inner = inner,
          .run = slice->length * inner,
          .row = shape[static_cast<size_t>(slice->dim)] * inner,
          .start = slice->start * inner};
}

Geometry::Stretch Geometry::to_whole(int64_t at) const {
  const auto s = strides();
  const int64_t inside = at % s.run;
  return {at / s.run * s.row + s.start + inside, s.run - inside};
}

Geometry::Stretch Geometry::from_whole(int64_t at) const {
  const auto s = strides();
  const int64_t inside = at % s.row - s.start;
  if (inside < 0 || inside >= s.run) return {};
  return {at / s.row * s.run + inside, s.run - inside};
}

FoundPiece find_piece(const std::vector<StoredPiece>& pieces, const Geometry& wanted, int64_t at) {
  for (const auto& piece : pieces) {
    Geometry::Stretch here{at, std::numeric_limits<int64_t>::max()};
    int64_t length = here.length;
    if (!same_slice(piece.slice, wanted.slice)) {  // the same cut needs no way through the whole
      const auto whole = wanted.to_whole(at);
      here = Geometry{wanted.shape, piece.slice}.from_whole(whole.begin);
      length = std::min(whole.length, here.length);
    }
    if (length > 0 && piece.begin <= here.begin && here.begin < piece.end) {
      return {&piece, here.begin - piece.begin, std::min(length, piece.end - here.begin)};
    }
  }
  return {};
}

Json OptimizerIndex::dump() const {
  Json all = Json::object();
  auto& members = all.get_ref<Json::object_t&>();
  for (const auto& [name, entry] : parameters) {
    Json json = {{"shape", entry.shape}};
    for (const auto& [kind, pieces] : entry.pieces) {
      Json list = Json::array();
      for (const auto& piece : pieces) list.push_back(dump_piece(piece));
      json[kind] = std::move(list);
    }
    members.push_back({name, std::move(json)});
  }
  return {{"format", kFormat}, {"version", kVersion}, {"parameters", std::move(all)}};
}

OptimizerIndex OptimizerIndex::parse(const Json& json, const std::string& origin) {
  require<DataError>(json_member(json, "format", origin) == kFormat, origin, ": 'format' is ",
                     json["format"].dump(), ", \"", kFormat, "\" is expected");
  require<DataError>(json_member(json, "version", origin) == kVersion, origin, ": 'version' is ",
                     json["version"].dump(), ", this program reads ", kVersion);
  const Json& all = json_member(json, "parameters", origin);
  require<DataError>(all.is_object(), origin, ": 'parameters' must be an object");
  OptimizerIndex index;
  for (const auto& [name, json_of_parameter] : all.items()) {
    auto& entry = index.parameters[name];
    entry.shape = parse_shape(json_member(json_of_parameter, "shape", origin), origin);
    for (const auto& [kind, pieces] : json_of_parameter.items()) {
      if (kind == "shape") continue;
      require<DataError>(pieces.is_array(), origin, ": '", name, "' has no list at '", kind, "'");
      for (const auto& piece : pieces) {
        entry.pieces[kind].push_back(parse_piece(piece, entry.shape, origin));
      }
    }
  }
  return index;
}

void OptimizerIndex::merge(const OptimizerIndex& other, const std::string& origin) {
  for (const auto& [name, entry] : other.parameters) {
    const auto [at, fresh] = parameters.try_emplace(name, Entry{.shape = entry.shape});
    require<DataError>(at->second.shape == entry.shape, origin, ": two ranks have parameter '",
                       name, "' in different shapes");
    for (const auto& [kind, pieces] : entry.pieces) {
      auto& all = at->second.pieces[kind];
      all.insert(all.end(), pieces.begin(), pieces.end());
    }
  }
}

void OptimizerIndex::check_complete(const std::string& origin) const {
  for (const auto& [name, entry] : parameters) {
    const Geometry whole{.shape = entry.shape};
    for (const auto& [kind, pieces] : entry.pieces) {
      for (int64_t at = 0; at < whole.numel();) {
        const auto found = find_piece(pieces, whole, at);
        require<DataError>(found.piece != nullptr, origin, ": no rank holds ", kind,
                           " of parameter '", name, "' from element ", at, " on, of ",
                           whole.numel());
        at += found.length;
      }
    }
  }
}

}  // namespace triptych
