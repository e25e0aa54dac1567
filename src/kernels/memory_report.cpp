#include "kernels/memory_report.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <utility>

#include "base/format.h"
#include "kernels/memory_books.h"
#include "kernels/memory_scope.h"

namespace triptych {
namespace {

std::mutex g_mutex;
MemoryContext g_context;
std::function<void(const std::string&)> g_failed;
std::atomic<int64_t> g_step{0};

using Line = std::pair<int64_t, std::string>;

std::string lines_of(const char* title, std::vector<Line> lines, size_t most) {
  std::ranges::stable_sort(lines, std::ranges::greater(), &Line::first);
  std::string text = fmt::format("  {}:\n", title);
  for (size_t i = 0; i < lines.size() && i < most; ++i)
    text += fmt::format("    {:>11}  {}\n", memory_text(lines[i].first), lines[i].second);
  return text;
}

}  // namespace

void set_memory_context(MemoryContext context) {
  const std::lock_guard lock(g_mutex);
  g_context = std::move(context);
}

void on_out_of_memory(std::function<void(const std::string& message)> call) {
  const std::lock_guard lock(g_mutex);
  g_failed = std::move(call);
}

void set_memory_step(int64_t step) { g_step = step; }

std::string memory_text(int64_t bytes) {
  const auto b = static_cast<double>(bytes);
  if (bytes >= int64_t{1} << 30) return fmt::format("{:.2f} GiB", b / (1 << 30));
  if (bytes >= 1 << 20) return fmt::format("{:.1f} MiB", b / (1 << 20));
  if (bytes >= 1 << 10) return fmt::format("{:.1f} KiB", b / (1 << 10));
  return fmt::format("{} B", bytes);
}

std::string memory_table(const MemoryTotals& totals, size_t most) {
  std::vector<Line> kinds, layers;
  for (size_t k = 0; k < kMemoryKinds; ++k) {
    if (totals.by_kind[k] > 0) kinds.emplace_back(totals.by_kind[k], kMemoryKindNames[k]);
  }
  for (size_t i = 0; i < totals.by_layer.size(); ++i) {
    const auto name = memory_layer_name(static_cast<uint16_t>(i));
    for (size_t k = 0; k < kMemoryKinds; ++k) {
      const int64_t bytes = totals.by_layer[i][k];
      if (bytes <= 0) continue;
      layers.emplace_back(
          bytes, fmt::format("{} of {}", kMemoryKindNames[k], name.empty() ? "no layer" : name));
    }
  }
  auto text = lines_of("by kind", std::move(kinds), kMemoryKinds) +
              lines_of("largest layers", std::move(layers), most);
  text.pop_back();
  return text;
}

std::string out_of_memory_text(const std::string& what, const std::string& reason,
                               const MemoryTotals& totals) {
  const auto place = memory_place();
  MemoryContext context;
  {
    const std::lock_guard lock(g_mutex);
    context = g_context;
  }
  auto where = fmt::format("rank {}, ", context.rank);
  if (g_step > 0) where += fmt::format("step {}, ", g_step.load());
  where += name_of(place.tag.phase);
  if (place.tag.layer > 0) where += fmt::format(" of {}", memory_layer_name(place.tag.layer));
  auto text = fmt::format("out of memory: {}: {}{}{}; tensors hold {}\n{}", where, what,
                          reason.empty() ? "" : ": ", reason, memory_text(totals.bytes),
                          memory_table(totals));
  if (!context.advice) return text;
  const auto advice = context.advice(totals);
  if (!advice.empty()) text += "\n  what would help:";
  for (const auto& line : advice) text += "\n    " + line;
  return text;
}

std::string tell_out_of_memory(size_t bytes, const std::string& reason) {
  books::give_up_reserve();
  const auto text = out_of_memory_text(memory_text(static_cast<int64_t>(bytes)) + " asked for",
                                       reason, memory_totals());
  std::function<void(const std::string&)> failed;
  {
    const std::lock_guard lock(g_mutex);
    failed = g_failed;
  }
  if (failed) failed(text);
  return text;
}

void books::refuse(size_t bytes, const char* reason) {
  throw OutOfMemory(tell_out_of_memory(bytes, reason));
}

}  // namespace triptych
