#include "insight/string_table.h"

#include <cstring>

namespace triptych::insight {
namespace {

uint64_t load(const char* p, size_t n) {
  uint64_t word = 0;
  std::memcpy(&word, p, n);
  return word;
}

/// Eight bytes a step; good enough for a table that compares the bytes anyway.
uint64_t hash_of(std::string_view s) {
  uint64_t h = 0x9E3779B97F4A7C15ull ^ s.size();
  const char* p = s.data();
  size_t left = s.size();
  for (; left >= 8; p += 8, left -= 8) {
    h = (h ^ load(p, 8)) * 0xD6E8FEB86659FD93ull;
    h ^= h >> 32;
  }
  h = (h ^ load(p, left)) * 0xD6E8FEB86659FD93ull;
  return h ^ (h >> 29);
}

}  // namespace

StringTable::StringTable() : slots_(1024), offsets_{0, 0} {}

void StringTable::grow() {
  std::vector<Slot> bigger(slots_.size() * 2);
  const size_t mask = bigger.size() - 1;
  for (const auto& slot : slots_) {
    if (slot.id == 0) continue;
    size_t at = hash_of((*this)[slot.id]) & mask;
    while (bigger[at].id != 0) at = (at + 1) & mask;
    bigger[at] = slot;
  }
  slots_ = std::move(bigger);
}

StringId StringTable::intern(std::string_view text) {
  if (text.empty()) return 0;
  if (text.size() > kMostBytes) text = text.substr(0, kMostBytes);
  const uint64_t hash = hash_of(text);
  const size_t mask = slots_.size() - 1;
  const auto tag = static_cast<uint32_t>(hash >> 32);
  size_t at = hash & mask;
  for (; slots_[at].id != 0; at = (at + 1) & mask) {
    if (slots_[at].hash == tag && (*this)[slots_[at].id] == text) return slots_[at].id;
  }
  const auto id = static_cast<StringId>(size());
  slots_[at] = {tag, id};
  bytes_.insert(bytes_.end(), text.begin(), text.end());
  offsets_.push_back(bytes_.size());
  if (size() * 2 > slots_.size()) grow();
  return id;
}

}  // namespace triptych::insight
