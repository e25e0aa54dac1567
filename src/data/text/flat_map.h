#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace triptych {

/// Hash map from 64-bit keys (all but ~0) to a small value, in one array: a look-up is one cache
/// miss.
template <class Value>
class FlatMap {
 public:
  explicit FlatMap(size_t expected = 0) { resize(expected); }

  /// The value of a key, or nullptr.
  const Value* find(uint64_t key) const {
    for (size_t at = slot(key);; at = (at + 1) & mask_) {
      if (slots_[at].key == key) return &slots_[at].value;
      if (slots_[at].key == kEmpty) return nullptr;
    }
  }
  Value* find(uint64_t key) { return const_cast<Value*>(std::as_const(*this).find(key)); }

  /// The value of a key, made if it is not there.
  Value& operator[](uint64_t key) {
    if (2 * (size_ + 1) > slots_.size()) grow();
    for (size_t at = slot(key);; at = (at + 1) & mask_) {
      if (slots_[at].key == key) return slots_[at].value;
      if (slots_[at].key == kEmpty) {
        slots_[at].key = key;
        ++size_;
        return slots_[at].value;
      }
    }
  }

  size_t size() const { return size_; }

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  struct Slot {
    uint64_t key = kEmpty;
    Value value{};
  };

  size_t slot(uint64_t key) const {
    key *= 0x9E3779B97F4A7C15u;  // 2^64 / golden ratio; the high half is well mixed
    return (key ^ key >> 32) & mask_;
  }

  void resize(size_t expected) {
    size_t slots = 16;
    while (slots < 2 * expected) slots *= 2;
    slots_.assign(slots, Slot{});
    mask_ = slots - 1;
  }

  void grow() {
    std::vector<Slot> old = std::move(slots_);
    resize(old.size());
    size_ = 0;
    for (Slot& s : old) {
      if (s.key != kEmpty) (*this)[s.key] = std::move(s.value);
    }
  }

  std::vector<Slot> slots_;
  size_t mask_ = 0, size_ = 0;
};

}  // namespace triptych
