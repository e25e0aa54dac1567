#include "base/error.h"
#include "data/text/byte_alphabet.h"
#include "data/text/tokenizer_parts.h"

namespace triptych {

void VocabularyBuilder::add(std::string_view token, int64_t id, std::string_view place) {
  require<DataError>(id >= 0 && id <= kMaxTokenId, origin_, ": ", place, ": id ", id, " of token '",
                     token, "' is outside 0..", kMaxTokenId);
  require<DataError>(!token.empty(), origin_, ": ", place, ": id ", id, " has an empty token");
  const bool is_new = ids_.emplace(token, static_cast<int32_t>(id)).second;
  require<DataError>(is_new, origin_, ": ", place, ": token '", token, "' occurs twice");
  if (pieces_.size() <= static_cast<size_t>(id)) pieces_.resize(id + 1);
  require<DataError>(pieces_[id].empty(), origin_, ": ", place, ": id ", id,
                     " belongs to two tokens, one of them '", token, "'");
  // An entry that is not in the byte alphabet cannot be reached by merges; it decodes to itself.
  pieces_[id] = from_byte_alphabet(token).value_or(std::string(token));
}

int32_t VocabularyBuilder::id_of(std::string_view token, std::string_view place) const {
  key_ = token;
  const auto found = ids_.find(key_);
  require<DataError>(found != ids_.end(), origin_, ": ", place, ": '", token,
                     "' is not in the vocabulary");
  return found->second;
}

void VocabularyBuilder::merge(std::string_view left, std::string_view right,
                              std::string_view place) {
  const std::string joined = std::string(left) + std::string(right);
  merges_.push_back({id_of(left, place), id_of(right, place), id_of(joined, place)});
}

}  // namespace triptych
