#pragma once

// The endless stream of rows that a run trains on: samples in the run's order, packed. Every rank
// computes the whole stream from the lengths alone and then decodes only its own rows.

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "data/packer.h"
#include "data/stream_order.h"

namespace triptych {

/// Where a stream of rows stands between two rows: all that a resumed run needs. It does not depend
/// on the number of ranks.
struct StreamState {
  int64_t epoch = 0;
  int64_t position = 0;          ///< of the epoch's next sample that was not looked at
  std::vector<int64_t> waiting;  ///< positions of the samples in the packer, oldest first
  int64_t rows = 0;              ///< made since the run began

  // What the positions refer to; set by the loader, compared on resume.
  uint64_t seed = 0;
  bool shuffle = false;
  std::vector<int64_t> shares;  ///< samples of each source in an epoch; empty: a fresh run

  bool operator==(const StreamState&) const = default;

  Json to_json() const;
  /// @throws DataError naming the field that is missing or out of range.
  static StreamState from_json(const Json& json, std::string_view origin);
};

/// That a run goes on with the stream of its checkpoint.
/// @param own      what the run's own positions refer to
/// @param sources  their names, for messages
/// @throws DataError when `begin` belongs to another seed or to other data
void check_resumes(const StreamState& begin, const StreamState& own, int64_t epoch_length,
                   std::span<const std::string> sources);

/// A row by the places of its samples in the epoch.
struct PlannedRow {
  int64_t epoch = 0;
  std::vector<PackItem> items;
};

struct RowStreamOptions {
  int64_t max_length = 4096;
  int64_t lookahead =
      1;  ///< samples to pack from; 1: one sample a row. Part of what fixes the rows
  bool one_pass = false;  ///< end after the first epoch
};

/// Not for use by several threads at once.
class RowStream {
 public:
  /// Length of the sample at (epoch, position), or nothing when it is to be left out. May throw,
  /// and then next() does.
  using LengthOf = std::function<std::optional<int32_t>(int64_t epoch, int64_t position)>;

  /// @param begin  as state() returned it, with all positions inside the epoch.
  RowStream(int64_t epoch_length, RowStreamOptions options, LengthOf length_of,
            const StreamState& begin = {});

  /// The next row; nothing only after the end of one pass. An epoch's samples never share a row
  /// with those of another. @throws DataError when a whole epoch has no sample that can be used.
  std::optional<PlannedRow> next();

  /// Epoch, position, waiting and rows; the rest is left alone.
  StreamState state() const;

 private:
  void refill();

  int64_t epoch_length_;
  RowStreamOptions options_;
  LengthOf length_of_;
  Packer packer_;
  int64_t epoch_, position_, rows_;
  bool epoch_has_rows_;
};

}  // namespace triptych
