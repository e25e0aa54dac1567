#include "data/row_stream.h"

#include <string>
#include <utility>

#include "base/error.h"

namespace triptych {
namespace {

int64_t whole_number(const Json& json, const char* key, std::string_view origin) {
  const auto& value = json_member(json, key, origin);
  require<DataError>(value.is_number_integer() && value.get<double>() >= 0, origin, ": ", key,
                     ": found ", value.dump(), "; expected a whole number from 0");
  return value.get<int64_t>();
}

std::vector<int64_t> whole_numbers(const Json& json, const char* key, std::string_view origin) {
  const auto& value = json_member(json, key, origin);
  require<DataError>(value.is_array(), origin, ": ", key, ": expected a list");
  std::vector<int64_t> numbers;
  for (const auto& item : value) {
    require<DataError>(item.is_number_integer() && item.get<double>() >= 0, origin, ": ", key,
                       ": found ", item.dump(), "; expected whole numbers from 0");
    numbers.push_back(item.get<int64_t>());
  }
  return numbers;
}

}  // namespace

Json StreamState::to_json() const {
  return {{"epoch", epoch}, {"position", position}, {"waiting", waiting}, {"rows", rows},
          {"seed", seed},   {"shuffle", shuffle},   {"shares", shares}};
}

StreamState StreamState::from_json(const Json& json, std::string_view origin) {
  StreamState state;
  state.epoch = whole_number(json, "epoch", origin);
  state.position = whole_number(json, "position", origin);
  state.waiting = whole_numbers(json, "waiting", origin);
  state.rows = whole_number(json, "rows", origin);
  const auto& seed = json_member(json, "seed", origin);
  require<DataError>(seed.is_number_integer(), origin, ": seed: expected a whole number");
  state.seed = seed.get<uint64_t>();
  const auto& shuffle = json_member(json, "shuffle", origin);
  require<DataError>(shuffle.is_boolean(), origin, ": shuffle: expected true or false");
  state.shuffle = shuffle.get<bool>();
  state.shares = whole_numbers(json, "shares", origin);
  return state;
}

void check_resumes(const StreamState& begin, const StreamState& own, int64_t epoch_length,
                   std::span<const std::string> sources) {
  require<DataError>(begin.seed == own.seed, "resume: the checkpoint's data order has seed ",
                     begin.seed, ", the run has ", own.seed);
  require<DataError>(begin.shuffle == own.shuffle,
                     "resume: data.shuffle differs from the checkpoint's");
  require<DataError>(begin.shares.size() == own.shares.size(), "resume: the checkpoint has ",
                     begin.shares.size(), " data sources, the run has ", own.shares.size());
  for (size_t s = 0; s < own.shares.size(); ++s) {
    require<DataError>(begin.shares[s] == own.shares[s], "resume: an epoch has ", own.shares[s],
                       " samples of ", sources[s], ", at the checkpoint it had ", begin.shares[s],
                       "; did the data, weight or repeat change?");
  }
  auto places = begin.waiting;
  places.push_back(begin.position);
  for (const auto place : places) {
    require<DataError>(place >= 0 && place <= epoch_length, "resume: the data position ", place,
                       " is outside of the epoch of ", epoch_length, " samples");
  }
}

RowStream::RowStream(int64_t epoch_length, RowStreamOptions options, LengthOf length_of,
                     const StreamState& begin)
    : epoch_length_(epoch_length),
      options_(options),
      length_of_(std::move(length_of)),
      packer_(options.max_length, options.lookahead),
      epoch_(begin.epoch),
      position_(begin.position),
      rows_(begin.rows),
      epoch_has_rows_(begin.position > 0) {
  for (const auto position : begin.waiting) {
    if (const auto length = length_of_(epoch_, position)) packer_.add({position, *length});
  }
}

void RowStream::refill() {
  while (packer_.wants_more() && position_ < epoch_length_) {
    if (const auto length = length_of_(epoch_, position_)) packer_.add({position_, *length});
    ++position_;
  }
}

std::optional<PlannedRow> RowStream::next() {
  for (;;) {
    refill();
    if (!packer_.empty()) {
      epoch_has_rows_ = true;
      ++rows_;
      return PlannedRow{epoch_, packer_.next_row()};
    }
    if (options_.one_pass && epoch_has_rows_) return std::nullopt;
    require<DataError>(epoch_has_rows_, "data: none of the ", epoch_length_, " samples of epoch ",
                       epoch_, " can be used");
    epoch_has_rows_ = false;
    ++epoch_;
    position_ = 0;
  }
}

StreamState RowStream::state() const {
  StreamState state;
  state.epoch = epoch_;
  state.position = position_;
  for (const auto& item : packer_.waiting()) state.waiting.push_back(item.position);
  state.rows = rows_;
  return state;
}

}  // namespace triptych
