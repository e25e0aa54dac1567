// Which frames each rule takes; docs/spec/qwen2_5_vl.md, 4.5.

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "data/media/video.h"

namespace triptych {
namespace {

constexpr double kUnknownFps = 24;

int64_t floor_to(double value, int64_t factor) {
  return static_cast<int64_t>(std::floor(value / static_cast<double>(factor))) * factor;
}

/// The number of frames that transformers and qwen-vl-utils take; they agree.
int64_t count_by_rate(const VideoInfo& info, double source_fps, const VideoSamplingOptions& o,
                      int64_t factor, std::string_view origin) {
  const int64_t most = std::min(o.max_frames, info.frames) / factor * factor;
  const double wanted = static_cast<double>(info.frames) / source_fps * o.fps;
  const double clamped = std::min({std::max(wanted, static_cast<double>(o.min_frames)),
                                   static_cast<double>(most), static_cast<double>(info.frames)});
  const int64_t count = floor_to(clamped, factor);
  require<DataError>(count > 0, origin, ": ", info.frames, " frames; this sampling rule takes a ",
                     "multiple of ", factor, " and at most ", o.max_frames,
                     "; \"llamafactory\" can use a single frame");
  return count;
}

/// trunc(arange(0, frames, frames / count)), in float as torch computes it.
std::vector<int64_t> by_arange(int64_t frames, int64_t count) {
  const double step = static_cast<double>(frames) / static_cast<double>(count);
  std::vector<int64_t> indices(count);
  for (int64_t i = 0; i < count; ++i) {
    indices[i] = static_cast<int64_t>(static_cast<float>(step * static_cast<double>(i)));
  }
  return indices;
}

/// round(linspace(0, frames - 1, count)) as torch computes it: in float, from both ends.
std::vector<int64_t> by_torch_linspace(int64_t frames, int64_t count) {
  const auto last = static_cast<float>(frames - 1);
  const float step = count > 1 ? last / static_cast<float>(count - 1) : 0;
  std::vector<int64_t> indices(count);
  for (int64_t i = 0; i < count; ++i) {
    const float at = i < count / 2 ? step * static_cast<float>(i)
                                   : last - step * static_cast<float>(count - 1 - i);
    indices[i] = static_cast<int64_t>(std::nearbyint(at));
  }
  return indices;
}

/// trunc(linspace(0, frames - 1, count)) as numpy computes it: in double, the last one exact.
std::vector<int64_t> by_numpy_linspace(int64_t frames, int64_t count) {
  const auto last = static_cast<double>(frames - 1);
  const double step = count > 1 ? last / static_cast<double>(count - 1) : 0;
  std::vector<int64_t> indices(count);
  for (int64_t i = 0; i < count; ++i) {
    indices[i] = static_cast<int64_t>(step * static_cast<double>(i));
  }
  if (count > 1) indices.back() = frames - 1;
  return indices;
}

FrameChoice choose_as_llamafactory(const VideoInfo& info, const VideoSamplingOptions& o,
                                   int64_t temporal_patch) {
  double duration = info.duration_s;
  if (duration <= 0)
    duration = static_cast<double>(info.frames) / (info.fps > 0 ? info.fps : o.fps);
  auto count = static_cast<int64_t>(std::max(1.0, std::floor(duration * o.fps)));
  count = std::min({count, info.frames, o.max_frames});
  FrameChoice choice{by_numpy_linspace(info.frames, count), static_cast<double>(count) / duration};
  while (choice.indices.size() % temporal_patch != 0) {
    choice.indices.push_back(choice.indices.back());
  }
  return choice;
}

}  // namespace

FrameChoice choose_frames(const VideoInfo& info, const VideoSamplingOptions& o,
                          int64_t temporal_patch, std::string_view origin) {
  require<DataError>(info.frames > 0, origin, ": the video has no frames");
  require<UsageError>(o.fps > 0 && o.max_frames >= 1 && o.min_frames >= 0, "data.video_fps (",
                      o.fps, ") must be above 0, data.video_max_frames (", o.max_frames,
                      ") at least 1");
  if (o.rule == VideoSampling::kLlamaFactory) {
    return choose_as_llamafactory(info, o, temporal_patch);
  }
  const double fps = info.fps > 0 ? info.fps : kUnknownFps;
  const int64_t count = count_by_rate(info, fps, o, temporal_patch, origin);
  auto indices = o.rule == VideoSampling::kTransformers ? by_arange(info.frames, count)
                                                        : by_torch_linspace(info.frames, count);
  return {std::move(indices), static_cast<double>(count) / static_cast<double>(info.frames) * fps};
}

}  // namespace triptych
