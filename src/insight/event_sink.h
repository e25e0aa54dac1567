#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "insight/string_table.h"
#include "insight/trace.h"

namespace triptych::insight {

/// An event as parsed, before tracks are sorted.
struct RawEvent {
  int64_t ts = 0, dur = 0;
  uint64_t args_offset = 0;  ///< of its `args` in the text; 0: none
  StringId name = 0;
  uint32_t track = 0;
  uint32_t correlation = 0, external = 0;
  uint32_t detail = kNone;
  Category category = Category::kOther;
  char phase = 'X';  ///< X complete, B begin, E end
  bool has_stream = false;
};

/// Blocks that stay where they are, so that growing copies nothing and each can be freed alone.
class RawEvents {
 public:
  static constexpr size_t kBlock = 1 << 14;
  void push(const RawEvent& event) {
    if (size_ % kBlock == 0) blocks_.push_back(std::make_unique<RawEvent[]>(kBlock));
    blocks_.back()[size_ % kBlock] = event;
    ++size_;
  }
  size_t size() const { return size_; }
  template <class F>
  void for_each(F&& f) {
    for (size_t b = 0; b < blocks_.size(); ++b)
      for (size_t i = 0, n = std::min(kBlock, size_ - b * kBlock); i < n; ++i) f(blocks_[b][i]);
  }
  /// The same, giving each block's memory back after its last use.
  template <class F>
  void consume(F&& f) {
    for (size_t b = 0; b < blocks_.size(); ++b) {
      for (size_t i = 0, n = std::min(kBlock, size_ - b * kBlock); i < n; ++i) f(blocks_[b][i]);
      blocks_[b].reset();
    }
    blocks_.clear();
    size_ = 0;
  }

 private:
  std::vector<std::unique_ptr<RawEvent[]>> blocks_;
  size_t size_ = 0;
};

/// A thread or stream, by the ids it has in the text; the same for a process with tid_text empty.
struct RawTrack {
  int64_t pid = 0, tid = 0;
  StringId pid_text = 0, tid_text = 0;  ///< as written, for ids that are words
  StringId name = 0;
  int32_t sort_index = 0;
  int32_t device = -1;
  bool named = false, sorted = false;
};

struct RawFlow {
  uint64_t id = 0;  ///< hash of category and id
  int64_t ts = 0;
  uint32_t track = 0;
  bool start = false;
};

/// What one thread has read so far. Ids of strings and tracks are its own.
struct EventSink {
  StringTable strings;
  RawEvents events;
  std::vector<RawTrack> tracks;
  std::vector<RawTrack> processes;  ///< metadata of processes
  std::vector<Collective> collectives;
  std::vector<KernelDetail> kernels;
  std::vector<OpDetail> ops;
  std::vector<MemoryEvent> memory;
  std::vector<RawFlow> flows;
  struct RawCounter {
    int64_t ts;
    double value;
    uint32_t track;
    StringId series;
  };
  std::vector<RawCounter> counters;
  uint64_t bad_events = 0;      ///< objects that could not be read as events
  uint64_t untimed_events = 0;  ///< complete events without a usable ts

  uint32_t track_of(int64_t pid, int64_t tid, std::string_view pid_text, std::string_view tid_text);
  RawTrack& process_of(int64_t pid, std::string_view pid_text);

 private:
  struct Key {
    int64_t pid, tid;
    bool operator==(const Key&) const = default;
  };
  struct Hash {
    size_t operator()(const Key& k) const {
      const auto pid = static_cast<uint64_t>(k.pid), tid = static_cast<uint64_t>(k.tid);
      return pid * 0x9E3779B97F4A7C15u + (tid ^ (tid >> 31)) * 31;
    }
  };
  std::unordered_map<Key, uint32_t, Hash> index_;
  std::unordered_map<int64_t, uint32_t> process_index_;
  Key last_key_{};
  uint32_t last_track_ = kNone;
};

}  // namespace triptych::insight
