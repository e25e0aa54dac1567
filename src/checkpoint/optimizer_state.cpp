#include "checkpoint/optimizer_state.h"

#include <map>

#include "base/error.h"
#include "checkpoint/optimizer_index.h"

namespace triptych {

struct OptimizerStateReader::Implementation {
  std::filesystem::path folder;
  OptimizerIndex index;
  std::map<std::string, std::shared_ptr<SafetensorsFile>> files;

  const OptimizerIndex::Entry& at(std::string_view parameter) const {
    const auto at = index.parameters.find(std::string(parameter));
    require<DataError>(at != index.parameters.end(), folder.string(), ": has no parameter '",
                       parameter, "' among its ", index.parameters.size());
    return at->second;
  }

  const SafetensorsFile& open(const std::string& name) {
    auto& file = files[name];
    if (!file) file = SafetensorsFile::open(folder / name);
    return *file;
  }
};

OptimizerStateReader::OptimizerStateReader(const std::filesystem::path& folder)
    : implementation_(std::make_unique<Implementation>()) {
  const auto path = folder / "index.json";
  implementation_->folder = folder;
  implementation_->index = OptimizerIndex::parse(read_json(path), path.string());
}

OptimizerStateReader::~OptimizerStateReader() = default;
OptimizerStateReader::OptimizerStateReader(OptimizerStateReader&&) noexcept = default;

std::vector<std::string> OptimizerStateReader::parameters() const {
  std::vector<std::string> names;
  for (const auto& [name, entry] : implementation_->index.parameters) names.push_back(name);
  return names;
}

bool OptimizerStateReader::contains(std::string_view parameter, std::string_view kind) const {
  const auto& all = implementation_->index.parameters;
  const auto at = all.find(std::string(parameter));
  return at != all.end() && at->second.pieces.contains(std::string(kind));
}

const std::vector<int64_t>& OptimizerStateReader::shape(std::string_view parameter) const {
  return implementation_->at(parameter).shape;
}

void OptimizerStateReader::read_range(std::string_view parameter, std::string_view kind,
                                      int64_t begin, int64_t end, const at::Tensor& destination,
                                      std::optional<TensorSlice> slice) const {
  const auto& entry = implementation_->at(parameter);
  const std::string place = detail::join_parts(implementation_->folder.string(), ": ", kind,
                                               " of parameter '", parameter, "'");
  const auto pieces = entry.pieces.find(std::string(kind));
  require<DataError>(pieces != entry.pieces.end(), place, " is not stored");
  require(!slice || (slice->dim >= 0 && slice->dim < static_cast<int64_t>(entry.shape.size()) &&
                     slice->start >= 0 && slice->length >= 0 &&
                     slice->start <= entry.shape[slice->dim] - slice->length),
          place, " is ", at::IntArrayRef(entry.shape), ", which has no such slice");
  const Geometry wanted{entry.shape, slice};
  require<DataError>(0 <= begin && begin <= end && end <= wanted.numel(), place, " has ",
                     wanted.numel(), " elements, asked for are [", begin, ", ", end, ")");
  require(destination.numel() == end - begin && destination.is_contiguous(), place,
          ": the destination must be contiguous with ", end - begin, " elements, it is ",
          destination.sizes());
  const auto flat = destination.detach().view({-1});
  for (int64_t at = begin; at < end;) {
    const auto found = find_piece(pieces->second, wanted, at);
    require<DataError>(found.piece != nullptr, place, ": no rank stored it from element ", at,
                       " on");
    const int64_t length = std::min(found.length, end - at);
    implementation_->open(found.piece->file)
        .read_range(found.piece->tensor, found.begin, flat.narrow(0, at - begin, length));
    at += length;
  }
}

}  // namespace triptych
