#include "profile/memory_snapshot.h"

#include <algorithm>
#include <array>
#include <ctime>
#include <fstream>
#include <map>
#include <tuple>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/files.h"
#include "base/format.h"
#include "base/pickle_writer.h"

namespace triptych {
namespace {

constexpr uint64_t kGap = 2u << 20;  ///< between blocks of one segment

/// Live blocks that lie close together.
struct Cluster {
  std::vector<MemoryBlock> blocks;
  uint64_t begin() const { return blocks.front().address; }
  uint64_t end() const {
    return blocks.back().address + static_cast<uint64_t>(blocks.back().bytes);
  }
};

std::vector<Cluster> clusters_of(std::vector<MemoryBlock> blocks) {
  std::ranges::sort(blocks, {}, &MemoryBlock::address);
  std::vector<Cluster> clusters;
  for (const auto& block : blocks) {
    if (clusters.empty() || block.address - clusters.back().end() > kGap) clusters.emplace_back();
    clusters.back().blocks.push_back(block);
  }
  return clusters;
}

class Writer {
 public:
  Writer(PickleWriter::Sink sink, const MemoryRecording& recording)
      : pickle_(std::move(sink)), recording_(recording) {}

  void write(const SnapshotFacts& facts) {
    pickle_.begin_dict();
    pickle_.text("segments");
    pickle_.begin_list();
    if (recording_.segments.empty()) {
      for (const auto& cluster : clusters_of(recording_.after)) segment(cluster);
    } else {
      std::map<uint64_t, MemoryBlock> known;
      for (const auto& b : recording_.after) known[b.address] = b;
      for (const auto& from : recording_.segments) segment(from, known);
    }
    pickle_.end_list();
    pickle_.text("device_traces");
    pickle_.begin_list();
    pickle_.begin_list();
    for (const auto& e : recording_.events) {
      if (e.bytes < 0) event("free_requested", e);
      event(e.bytes < 0 ? "free_completed" : "alloc", e);
    }
    pickle_.end_list();
    pickle_.end_list();
    pickle_.text("allocator_settings");
    pickle_.begin_dict();
    text("backend", recording_.segments.empty() ? "cpu" : "native");
    pickle_.end_dict();
    pickle_.text("external_annotations");
    pickle_.begin_list();
    pickle_.end_list();
    about(facts);
    pickle_.end_dict();
    pickle_.finish();
  }

 private:
  void number(std::string_view key, int64_t value) {
    pickle_.text(key);
    pickle_.integer(value);
  }
  void place(std::string_view key, uint64_t value) {
    pickle_.text(key);
    pickle_.address(value);
  }
  void text(std::string_view key, std::string_view value) {
    pickle_.text(key);
    pickle_.text(value);
  }

  void frame(std::string_view name, std::string_view file) {
    pickle_.begin_dict();
    text("name", name);
    text("filename", file);
    number("line", 0);
    pickle_.end_dict();
  }

  /// The layer with what it did, then the thread. One list for all blocks of a place.
  void frames(MemoryTag tag, uint16_t thread) {
    pickle_.text("frames");
    const auto key = std::tuple(tag.layer, tag.phase, thread);
    if (const auto known = frames_.find(key); known != frames_.end())
      return pickle_.again(known->second);
    pickle_.begin_list();
    const auto& layer = recording_.layers.at(tag.layer);
    frame(layer.empty() ? "(no layer)" : layer, name_of(tag.phase));
    frame(recording_.threads.at(thread), "thread");
    pickle_.end_list();
    frames_[key] = pickle_.keep();
  }

  void gap(uint64_t address, int64_t bytes, std::string_view state) {
    pickle_.begin_dict();
    place("address", address);
    number("size", bytes);
    number("requested_size", 0);
    text("state", state);
    pickle_.text("frames");
    pickle_.begin_list();
    pickle_.end_list();
    pickle_.end_dict();
  }

  /// @param bytes  with the allocator's rounding.
  void block(const MemoryBlock& b, int64_t bytes) {
    pickle_.begin_dict();
    place("address", b.address);
    number("size", bytes);
    number("requested_size", b.bytes);
    text("state", "active_allocated");
    text("category", name_of(b.tag.kind));
    frames(b.tag, b.thread);
    pickle_.end_dict();
  }

  /// What both kinds of segments have but the blocks, which follow.
  void begin_segment(uint64_t address, int64_t bytes, int64_t allocated, int64_t stream,
                     bool large) {
    pickle_.begin_dict();
    number("device", 0);
    place("address", address);
    number("total_size", bytes);
    number("allocated_size", allocated);
    number("active_size", allocated);
    number("requested_size", allocated);
    number("stream", stream);
    text("segment_type", large ? "large" : "small");
    pickle_.text("segment_pool_id");
    pickle_.begin_list();
    pickle_.integer(0);
    pickle_.integer(0);
    pickle_.end_list();
    pickle_.text("frames");
    pickle_.begin_list();
    pickle_.end_list();
    pickle_.text("blocks");
    pickle_.begin_list();
  }
  void end_segment() {
    pickle_.end_list();
    pickle_.end_dict();
  }

  void segment(const Cluster& cluster) {
    int64_t allocated = 0;
    for (const auto& b : cluster.blocks) allocated += b.bytes;
    begin_segment(cluster.begin(), static_cast<int64_t>(cluster.end() - cluster.begin()), allocated,
                  0, true);
    uint64_t at = cluster.begin();
    for (const auto& b : cluster.blocks) {
      if (b.address > at) gap(at, static_cast<int64_t>(b.address - at), "inactive");
      block(b, b.bytes);
      at = b.address + static_cast<uint64_t>(b.bytes);
    }
    end_segment();
  }

  /// A device's: its allocator's cut, with what our books know of each block.
  void segment(const MemorySegment& from, const std::map<uint64_t, MemoryBlock>& known) {
    int64_t allocated = 0;
    for (const auto& part : from.blocks) allocated += part.allocated ? part.bytes : 0;
    begin_segment(from.address, from.bytes, allocated, from.stream, from.large);
    for (const auto& part : from.blocks) {
      const uint64_t end = part.address + static_cast<uint64_t>(part.bytes);
      auto at = known.lower_bound(part.address);
      if (!part.allocated) {
        gap(part.address, part.bytes, part.active ? "active_pending_free" : "inactive");
      } else if (at == known.end() || at->first != part.address) {  // from before the books
        block({.address = part.address, .bytes = part.requested}, part.bytes);
      }
      // A buffer of several layers is a block for each.
      for (; part.allocated && at != known.end() && at->first < end; ++at) {
        const auto next = std::next(at);
        const uint64_t behind = next != known.end() && next->first < end ? next->first : end;
        block(at->second, static_cast<int64_t>(behind - at->first));
      }
    }
    end_segment();
  }

  void event(std::string_view action, const MemoryEvent& e) {
    pickle_.begin_dict();
    text("action", action);
    place("addr", e.address);
    number("size", e.bytes < 0 ? -e.bytes : e.bytes);
    number("stream", 0);
    number("time_us", e.time_ns / 1000);
    text("category", name_of(e.tag.kind));
    if (action == "free_requested") {
      pickle_.text("frames");
      pickle_.begin_list();
      pickle_.end_list();
    } else {
      frames(e.tag, e.thread);
    }
    pickle_.end_dict();
  }

  void about(const SnapshotFacts& facts) {
    int64_t before = 0;
    for (const auto& b : recording_.before) before += b.bytes;
    pickle_.text("triptych");
    pickle_.begin_dict();
    number("version", 1);
    number("rank", facts.rank);
    number("world_size", facts.world_size);
    number("first_step", facts.first_step);
    number("end_step", facts.end_step);
    number("begin_us", recording_.begin_ns / 1000);
    number("end_us", recording_.end_ns / 1000);
    number("allocated_at_begin", before);
    number("dropped", recording_.dropped);
    if (!facts.failure.empty()) text("failure", facts.failure);
    pickle_.end_dict();
  }

  PickleWriter pickle_;
  const MemoryRecording& recording_;
  std::map<std::tuple<uint16_t, MemoryPhase, uint16_t>, uint32_t> frames_;
};

}  // namespace

void write_memory_snapshot(const std::filesystem::path& file, const MemoryRecording& recording,
                           const SnapshotFacts& facts) {
  auto partial = file;
  partial += ".partial";
  std::ofstream out(partial, std::ios::binary | std::ios::trunc);
  Writer(
      [&](std::string_view bytes) {
        out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
      },
      recording)
      .write(facts);
  out.close();
  if (!out) {
    std::error_code ignored;
    std::filesystem::remove(partial, ignored);
    fail(file.string(), ": the memory snapshot cannot be written; is the disk full?");
  }
  std::filesystem::rename(partial, file);
}

std::filesystem::path new_snapshot_path(const std::filesystem::path& folder, int64_t rank) {
  make_folders(folder);
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  std::array<char, 32> minute{};
  std::strftime(minute.data(), minute.size(), "%Y-%m-%d-%H-%M", &local);
  const auto stem = fmt::format("snapshot_{}_{}", minute.data(), rank);
  auto path = folder / (stem + ".pickle");
  for (int n = 2; std::filesystem::exists(path); ++n)
    path = folder / fmt::format("{}_{}.pickle", stem, n);
  return path;
}

}  // namespace triptych
