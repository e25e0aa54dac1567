#include "insight/trace.h"

#include <algorithm>

#include "base/error.h"
#include "insight/byte_source.h"
#include "insight/tolerant_json.h"
#include "insight/trace_image.h"

namespace triptych::insight {

uint32_t Trace::track_of(EventId e) const {
  // Tracks without events (counters) share their position with the next one.
  const auto behind = std::ranges::upper_bound(tracks_, e, {}, &Track::first_event);
  auto at = static_cast<size_t>(behind - tracks_.begin());
  while (at > 0 && tracks_[at - 1].num_events == 0) --at;
  return at == 0 ? 0 : static_cast<uint32_t>(at - 1);
}

const Collective* Trace::collective(EventId e) const {
  const uint32_t at = detail_[e];
  if (at == kNone) return nullptr;
  const Category c = category(e);
  if (c == Category::kCollective || c == Category::kUserAnnotation)
    return at < collectives_.size() ? &collectives_[at] : nullptr;
  const KernelDetail* k = kernel(e);
  return k && k->collective < collectives_.size() ? &collectives_[k->collective] : nullptr;
}

const KernelDetail* Trace::kernel(EventId e) const {
  const Category c = category(e);
  const bool device = c == Category::kKernel || c == Category::kMemcpy || c == Category::kMemset;
  return device && detail_[e] < kernels_.size() ? &kernels_[detail_[e]] : nullptr;
}

const OpDetail* Trace::op(EventId e) const {
  return category(e) == Category::kCpuOp && detail_[e] < ops_.size() ? &ops_[detail_[e]] : nullptr;
}

std::string_view Trace::string(StringId id) const {
  if (id >= num_strings()) return {};
  return {string_bytes_.data() + string_offsets_[id],
          string_offsets_[id + 1] - string_offsets_[id]};
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
  const uint64_t offset = args_offset_[e];
  if (offset == 0) return Json::object();
  const GzPoint* point = nullptr;
  const auto behind = std::ranges::upper_bound(gz_points_, offset, {}, &GzPoint::out);
  if (behind != gz_points_.begin()) point = &*std::prev(behind);
  constexpr size_t kMost = 1 << 20;
  // Most arguments are short: a second, longer look only where the first one broke off.
  for (size_t size = 8 << 10;; size = kMost) {
    const auto text = source_text_
                          ? std::string(std::string_view(*source_text_).substr(offset, size))
                          : read_text_at(source_, offset, size, point,
                                         point ? gz_windows_.data() + point->window : nullptr);
    require(text.starts_with("{"), source_.string(),
            ": has changed since it was read; open it again");
    const auto end = whole_value_size(text);
    if (end > 0 || size == kMost || text.size() < size)
      return parse_tolerant(std::string_view(text).substr(0, end > 0 ? end : text.size()));
  }
}

}  // namespace triptych::insight
