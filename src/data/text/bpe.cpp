#include "data/text/bpe.h"

#include <algorithm>
#include <cstring>
#include <queue>
#include <utility>

#include "base/error.h"
#include "base/format.h"

namespace triptych {

// Up to this many bytes a scan for the lowest rank beats a heap.
constexpr size_t kShortPiece = 96;

Bpe::Bpe(std::vector<std::string> pieces, std::span<const Merge> merges, bool whole_first)
    : pieces_(std::move(pieces)), joins_(merges.size()), whole_first_(whole_first) {
  byte_ids_.fill(-1);
  id_of_.reserve(pieces_.size());
  for (size_t id = 0; id < pieces_.size(); ++id) {
    const std::string& bytes = pieces_[id];
    if (bytes.empty()) continue;
    id_of_.emplace(bytes, static_cast<int32_t>(id));
    if (bytes.size() == 1) {
      byte_ids_[static_cast<unsigned char>(bytes[0])] = static_cast<int32_t>(id);
    }
  }
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const Merge& m = merges[rank];
    joins_[uint64_t{static_cast<uint32_t>(m.left)} << 32 | static_cast<uint32_t>(m.right)] = {
        static_cast<int32_t>(rank), m.result};
  }
}

int32_t Bpe::find(std::string_view bytes) const {
  const auto found = id_of_.find(bytes);
  return found == id_of_.end() ? -1 : found->second;
}

int32_t Bpe::id_of_byte(char byte) const {
  const auto value = static_cast<unsigned char>(byte);
  const int32_t id = byte_ids_[value];
  if (id < 0) [[unlikely]] {
    fail<DataError>("byte ", fmt::format("0x{:02X}", value), " has no token in this vocabulary");
  }
  return id;
}

void Bpe::encode(std::string_view piece, std::vector<int32_t>& ids) const {
  if (piece.size() == 1) {
    ids.push_back(id_of_byte(piece[0]));
    return;
  }
  if (whole_first_) {
    const int32_t whole = find(piece);
    if (whole >= 0) {
      ids.push_back(whole);
      return;
    }
  }
  piece.size() <= kShortPiece ? encode_short(piece, ids) : encode_long(piece, ids);
}

void Bpe::encode_short(std::string_view piece, std::vector<int32_t>& ids) const {
  std::array<int32_t, kShortPiece> tokens;
  std::array<Joined, kShortPiece> joined;  // joined[i]: tokens i and i + 1
  size_t n = piece.size();
  for (size_t i = 0; i < n; ++i) tokens[i] = id_of_byte(piece[i]);
  for (size_t i = 0; i + 1 < n; ++i) joined[i] = join(tokens[i], tokens[i + 1]);
  while (n > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < n; ++i) {
      if (joined[i].rank < joined[best].rank) best = i;
    }
    if (joined[best].rank == kNoRank) break;
    tokens[best] = joined[best].id;
    --n;
    std::copy(tokens.begin() + best + 2, tokens.begin() + n + 1, tokens.begin() + best + 1);
    if (n > best + 1) {
      std::copy(joined.begin() + best + 2, joined.begin() + n, joined.begin() + best + 1);
      joined[best] = join(tokens[best], tokens[best + 1]);
    }
    if (best > 0) joined[best - 1] = join(tokens[best - 1], tokens[best]);
  }
  ids.insert(ids.end(), tokens.begin(), tokens.begin() + n);
}

void Bpe::encode_long(std::string_view piece, std::vector<int32_t>& ids) const {
  struct Node {
    int32_t id;
    uint32_t previous, next;  // piece.size(): none
  };
  struct Candidate {
    int32_t rank;
    uint32_t at;
    int32_t left, right, result;  // stale when the two nodes no longer hold these
    bool operator>(const Candidate& o) const {
      return std::pair(rank, at) > std::pair(o.rank, o.at);
    }
  };
  require<DataError>(piece.size() < UINT32_MAX, "a piece of ", piece.size(), " bytes is too long");
  const auto n = static_cast<uint32_t>(piece.size());
  std::vector<Node> nodes(n);
  for (uint32_t i = 0; i < n; ++i) nodes[i] = {id_of_byte(piece[i]), i == 0 ? n : i - 1, i + 1};
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto consider = [&](uint32_t at) {
    if (at == n || nodes[at].next == n) return;
    const int32_t left = nodes[at].id, right = nodes[nodes[at].next].id;
    const Joined j = join(left, right);
    if (j.rank != kNoRank) queue.push({j.rank, at, left, right, j.id});
  };
  for (uint32_t i = 0; i < n; ++i) consider(i);
  while (!queue.empty()) {
    const Candidate c = queue.top();
    queue.pop();
    Node& node = nodes[c.at];
    if (node.id != c.left || node.next == n || nodes[node.next].id != c.right) continue;
    const uint32_t gone = node.next;
    node.id = c.result;
    node.next = nodes[gone].next;
    nodes[gone].id = -1;  // candidates that begin there are stale
    if (node.next != n) nodes[node.next].previous = c.at;
    consider(c.at);
    consider(node.previous);
  }
  for (uint32_t at = 0; at != n; at = nodes[at].next) ids.push_back(nodes[at].id);
}

void PieceCache::encode(const Bpe& bpe, std::string_view piece, size_t readable,
                        std::vector<int32_t>& ids) {
  if (piece.size() > kKeyBytes) {
    bpe.encode(piece, ids);
    return;
  }
  std::array<uint64_t, kKeyBytes / 8> key{};
  if (readable >= kKeyBytes) {  // four loads and masks instead of a copy of unknown length
    std::memcpy(key.data(), piece.data(), kKeyBytes);
    for (size_t word = 0; word < key.size(); ++word) {
      const size_t from = word * 8;
      const size_t kept = piece.size() > from ? std::min<size_t>(piece.size() - from, 8) : 0;
      key[word] = kept == 8 ? key[word] : key[word] & ((uint64_t{1} << (8 * kept)) - 1);
    }
  } else {
    std::memcpy(key.data(), piece.data(), piece.size());
  }
  uint64_t hash = (key[0] ^ piece.size()) * 0x9E3779B97F4A7C15u;
  hash = (hash ^ hash >> 29 ^ key[1]) * 0xBF58476D1CE4E5B9u;
  hash = (hash ^ hash >> 32 ^ key[2]) * 0x94D049BB133111EBu;
  hash = (hash ^ hash >> 29 ^ key[3]) * 0x9E3779B97F4A7C15u;
  Line* set = &lines_[(hash >> 40 & (kSets - 1)) * kWays];
  for (size_t way = 0; way < kWays; ++way) {
    const Line& line = set[way];
    if (line.size == piece.size() && line.key == key) {
      ids.insert(ids.end(), line.ids.begin(), line.ids.begin() + line.count);
      return;
    }
  }
  const size_t before = ids.size();
  bpe.encode(piece, ids);
  const size_t count = ids.size() - before;
  if (count > kIds) return;
  set[1] = set[0];
  set[0].key = key;
  std::copy(ids.begin() + before, ids.end(), set[0].ids.begin());
  set[0].size = static_cast<uint8_t>(piece.size());
  set[0].count = static_cast<uint8_t>(count);
}

}  // namespace triptych
