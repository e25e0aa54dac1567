#include "insight/trace.h"

#include <algorithm>

#include "base/error.h"
#include "insight/byte_source.h"
#include "insight/tolerant_json.h"
#include "insight/trace_image.h"

namespace triptych::insight {

uint32_t Trace::track_of(EventId e) const {
  // Tracks without events (counters) share their position with the next one.
  const auto behind = std::ranges::upper_bound(columns_.tracks, e, {}, &Track::first_event);
  auto at = static_cast<size_t>(behind - columns_.tracks.begin());
  while (at > 0 && columns_.tracks[at - 1].num_events == 0) --at;
  return at == 0 ? 0 : static_cast<uint32_t>(at - 1);
}

const Collective* Trace::collective(EventId e) const {
  const uint32_t at = columns_.detail[e];
  if (at == kNone) return nullptr;
  const Category c = category(e);
  if (c == Category::kCollective || c == Category::kUserAnnotation)
    return at < columns_.collectives.size() ? &columns_.collectives[at] : nullptr;
  const KernelDetail* k = kernel(e);
  return k && k->collective < columns_.collectives.size() ? &columns_.collectives[k->collective]
                                                          : nullptr;
}

const KernelDetail* Trace::kernel(EventId e) const {
  const Category c = category(e);
  const bool device = c == Category::kKernel || c == Category::kMemcpy || c == Category::kMemset;
  return device && columns_.detail[e] < columns_.kernels.size()
             ? &columns_.kernels[columns_.detail[e]]
             : nullptr;
}

const OpDetail* Trace::op(EventId e) const {
  return category(e) == Category::kCpuOp && columns_.detail[e] < columns_.ops.size()
             ? &columns_.ops[columns_.detail[e]]
             : nullptr;
}

std::string_view Trace::string(StringId id) const {
  if (id >= num_strings()) return {};
  return {columns_.string_bytes.data() + columns_.string_offsets[id],
          columns_.string_offsets[id + 1] - columns_.string_offsets[id]};
}

std::optional<int64_t> Trace::header_rank() const {
  if (!metadata_ || !metadata_->is_object()) return std::nullopt;
  const auto whole = [](const Json& object, const char* key) -> std::optional<int64_t> {
    if (!object.is_object() || !object.contains(key)) return std::nullopt;
    const auto& value = object[key];
    if (value.is_number_integer()) return value.get<int64_t>();
    return std::nullopt;
  };
  if (metadata_->contains("distributedInfo"))
    if (const auto rank = whole((*metadata_)["distributedInfo"], "rank")) return rank;
  return whole(*metadata_, "rank");
}

Json Trace::arguments(EventId e) const {
  const uint64_t offset = columns_.args_offset[e];
  if (offset == 0) return Json::object();
  const GzPoint* point = nullptr;
  const auto behind = std::ranges::upper_bound(columns_.gz_points, offset, {}, &GzPoint::out);
  if (behind != columns_.gz_points.begin()) point = &*std::prev(behind);
  constexpr size_t kMost = 1 << 20;
  // Most arguments are short: a second, longer look only where the first one broke off.
  for (size_t size = 8 << 10;; size = kMost) {
    const auto text =
        source_text_ ? std::string(std::string_view(*source_text_).substr(offset, size))
                     : read_text_at(source_, offset, size, point,
                                    point ? columns_.gz_windows.data() + point->window : nullptr);
    require(text.starts_with("{"), source_.string(),
            ": has changed since it was read; open it again");
    const auto end = whole_value_size(text);
    if (end > 0 || size == kMost || text.size() < size)
      return parse_tolerant(std::string_view(text).substr(0, end > 0 ? end : text.size()));
  }
}

}  // namespace triptych::insight
