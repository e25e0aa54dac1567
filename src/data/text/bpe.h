#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/text/flat_map.h"

namespace triptych {

/// Largest id a vocabulary may use: keeps hostile files from asking for gigabytes.
inline constexpr int32_t kMaxTokenId = (1 << 22) - 1;

/// Merges of byte pairs over a vocabulary of byte strings.
class Bpe {
 public:
  struct Merge {
    int32_t left, right, result;  ///< ids; a merge's rank is its place in the list
  };

  /// @param pieces   [ids] bytes of each id; empty where an id stands for nothing mergeable
  /// @param merges   in rank order; of a repeated pair the last one counts, as in the reference
  /// @param whole_first  a piece that is itself in the vocabulary is taken without merging
  Bpe(std::vector<std::string> pieces, std::span<const Merge> merges, bool whole_first);

  /// Appends the ids of one piece: the adjacent pair of lowest rank, leftmost first, is joined
  /// until none is left. n log n in its length. @throws DataError on a byte without an id.
  void encode(std::string_view piece, std::vector<int32_t>& ids) const;

  /// Id whose bytes these are, or -1.
  int32_t find(std::string_view bytes) const;

  std::string_view bytes_of(int32_t id) const { return pieces_[id]; }
  int64_t size() const { return static_cast<int64_t>(pieces_.size()); }
  bool whole_first() const { return whole_first_; }

 private:
  struct Joined {
    int32_t rank = 0, id = 0;
  };
  static constexpr int32_t kNoRank = INT32_MAX;

  Joined join(int32_t left, int32_t right) const {
    const Joined* found =
        joins_.find(uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right));
    return found == nullptr ? Joined{kNoRank, -1} : *found;
  }
  int32_t id_of_byte(char byte) const;
  void encode_short(std::string_view piece, std::vector<int32_t>& ids) const;
  void encode_long(std::string_view piece, std::vector<int32_t>& ids) const;

  std::vector<std::string> pieces_;
  std::unordered_map<std::string_view, int32_t> id_of_;
  std::array<int32_t, 256> byte_ids_;
  FlatMap<Joined> joins_;
  bool whole_first_;
};

/// Remembers the ids of recent short pieces. One thread.
class PieceCache {
 public:
  PieceCache() : lines_(std::make_unique<Line[]>(kSets * kWays)) {}

  /// Appends the ids of a piece, from memory or from `bpe`, of which there is one for the cache's
  /// life.
  /// @param readable  bytes that may be read from piece.data() on, at least piece.size()
  void encode(const Bpe& bpe, std::string_view piece, size_t readable, std::vector<int32_t>& ids);

 private:
  static constexpr size_t kKeyBytes = 32, kIds = 7, kWays = 2, kSets = 1 << 14;
  // One cache line: a hit costs one miss. Words of natural text fit nearly always.
  struct alignas(64) Line {
    std::array<uint64_t, kKeyBytes / 8> key{};
    std::array<int32_t, kIds> ids{};
    uint8_t size = 0, count = 0;  // of the key in bytes (0: empty), of the ids
  };
  static_assert(sizeof(Line) == 64);

  std::unique_ptr<Line[]> lines_;
};

}  // namespace triptych
