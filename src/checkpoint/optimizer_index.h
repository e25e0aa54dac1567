#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "checkpoint/safetensors.h"

namespace triptych {

/// The elements of one parameter that a slice (or all of it) holds, numbered in its own flattened
/// order; says where they lie in the whole flattened parameter.
struct Geometry {
  std::vector<int64_t> shape;  ///< of the whole parameter
  std::optional<TensorSlice> slice;

  int64_t numel() const;
  /// A stretch of neighbours both here and in the whole parameter.
  struct Stretch {
    int64_t begin = 0, length = 0;
  };
  /// From element `at` of this geometry on: where it lies in the whole, and how far that goes on.
  Stretch to_whole(int64_t at) const;
  /// The reverse; length 0 when the slice does not hold the element.
  Stretch from_whole(int64_t at) const;

 private:
  struct Strides {
    int64_t inner = 1;  ///< elements of one index of the cut dim
    int64_t run = 1;    ///< neighbours that the slice holds
    int64_t row = 1;    ///< neighbours of the whole around them
    int64_t start = 0;  ///< of the run in its row
  };
  Strides strides() const;
};

/// Where one piece of an optimizer state lies.
struct StoredPiece {
  std::string file;    ///< in the folder `optimizer`
  std::string tensor;  ///< its name in there
  int64_t begin = 0, end = 0;
  std::optional<TensorSlice> slice;
};

/// `optimizer/index.json`: parameter -> shape, kind -> pieces.
struct OptimizerIndex {
  struct Entry {
    std::vector<int64_t> shape;
    std::map<std::string, std::vector<StoredPiece>> pieces;
  };
  std::map<std::string, Entry> parameters;

  Json dump() const;
  static OptimizerIndex parse(const Json& json, const std::string& origin);
  /// Adds another rank's pieces. @throws DataError when the shapes differ.
  void merge(const OptimizerIndex& other, const std::string& origin);
  /// @throws DataError naming the first elements of a state that no rank stored.
  void check_complete(const std::string& origin) const;
};

/// The piece of `pieces` that holds element `at` of `wanted`, which of its elements that is and for
/// how many it goes on; a null piece when there is none.
struct FoundPiece {
  const StoredPiece* piece = nullptr;
  int64_t begin = 0, length = 0;
};
FoundPiece find_piece(const std::vector<StoredPiece>& pieces, const Geometry& wanted, int64_t at);

}  // namespace triptych
