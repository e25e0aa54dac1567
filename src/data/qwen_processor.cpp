#include "data/qwen_processor.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/error.h"
#include "data/base64.h"

namespace triptych {
namespace {

std::string shown_media(const Part& part) {
  if (part.kind == PartKind::kVideo && !part.frames.empty()) return part.frames.front() + ", ...";
  return part.media.starts_with("data:") ? part.media.substr(0, 24) + "..." : part.media;
}

VideoSource video_source(const Part& part, const std::string& origin) {
  VideoSource source;
  for (const auto& frame : part.frames) {
    require<DataError>(!frame.starts_with("data:"), origin,
                       ": found a data: frame of a video; expected files");
    source.pictures.emplace_back(frame);
  }
  if (!source.pictures.empty()) return source;
  require<DataError>(!part.media.starts_with("data:"), origin,
                     ": found a data: video; expected a file");
  source.file = part.media;
  return source;
}

/// Runs `body`; whatever is wrong with a medium is told with the record it stands in.
template <class Body>
auto with_origin(const std::string& origin, const Body& body) {
  try {
    return body();
  } catch (const UsageError&) {
    throw;
  } catch (const Error& error) {
    const std::string_view words = error.what();
    if (words.starts_with(origin)) throw DataError(std::string(words));
    fail<DataError>(origin, ": ", words);
  }
}

}  // namespace

std::vector<std::byte> decode_data_uri(std::string_view uri, std::string_view origin) {
  constexpr std::string_view kMark = ";base64,";
  const auto mark = uri.find(kMark);
  require<DataError>(uri.starts_with("data:") && mark != std::string_view::npos, origin,
                     ": found no data:...;base64,...");
  return decode_base64(uri.substr(mark + kMark.size()), origin);
}

QwenProcessor::QwenProcessor(Tokenizer tokenizer, const ChatTemplate& chat,
                             const VisionOptions& vision, const EncodeOptions& encode)
    : tokenizer_(std::move(tokenizer)), chat_(chat), vision_(vision), encode_(encode) {}

QwenProcessor::Plan QwenProcessor::plan(const Conversation& conversation) const {
  const auto& origin = conversation.origin;
  Plan plan;
  std::vector<int64_t> media_tokens;
  for (const auto* part : conversation.media()) {
    plan.media.push_back(with_origin(origin, [&] {
      if (part->kind == PartKind::kVideo) return vision_.plan_video(video_source(*part, origin));
      if (!part->media.starts_with("data:")) return vision_.plan_image(part->media);
      const auto name = shown_media(*part);
      const auto bytes = decode_data_uri(part->media, name);
      return vision_.plan_image(
          probe_image(std::span(bytes), name, vision_.options().image_limits).size, name);
    }));
    media_tokens.push_back(plan.media.back().tokens);
  }
  plan.text = with_origin(origin, [&] {
    return encode_conversation(chat_, tokenizer_, conversation, media_tokens, encode_);
  });
  return plan;
}

SampleSize QwenProcessor::measure(const Conversation& conversation) const {
  const auto made = plan(conversation);
  SampleSize size;
  size.tokens = static_cast<int32_t>(made.text.tokens.size());
  const auto& labels = made.text.labels;
  if (!labels.empty()) {
    size.labels = static_cast<int32_t>(std::count_if(
        labels.begin() + 1, labels.end(), [](int32_t label) { return label != kIgnoreLabel; }));
  }
  require<DataError>(size.labels > 0, conversation.origin,
                     ": no token carries a label; expected an answer to learn");
  for (const auto m : made.text.media) {
    const auto patches = made.media[static_cast<size_t>(m)].grid.patches();
    size.media_bytes += static_cast<uint64_t>(patches * vision_.patch_dim()) * sizeof(float);
  }
  return size;
}

Sample QwenProcessor::take_text(const Conversation& conversation, Plan& plan) {
  Sample sample;
  sample.origin = conversation.origin;
  sample.tokens = std::move(plan.text.tokens);
  sample.labels = std::move(plan.text.labels);
  return sample;
}

Sample QwenProcessor::make(const Conversation& conversation) const {
  auto made = plan(conversation);
  auto sample = take_text(conversation, made);
  const auto parts = conversation.media();
  for (const auto m : made.text.media) {
    const auto& part = *parts[static_cast<size_t>(m)];
    const auto& origin = conversation.origin;
    sample.media.push_back(with_origin(origin, [&] {
      if (part.kind == PartKind::kVideo) return vision_.video(video_source(part, origin));
      if (!part.media.starts_with("data:")) return vision_.image(part.media);
      const auto name = shown_media(part);
      const auto bytes = decode_data_uri(part.media, name);
      return vision_.image(std::span(bytes), name);
    }));
    const auto& planned = made.media[static_cast<size_t>(m)].grid;
    require<DataError>(sample.media.back().grid == planned, origin, ": ", shown_media(part),
                       ": its size differs from its header's");
  }
  return sample;
}

Sample QwenProcessor::make_without_pixels(const Conversation& conversation) const {
  auto made = plan(conversation);
  auto sample = take_text(conversation, made);
  const auto parts = conversation.media();
  for (const auto m : made.text.media) {
    const auto& media = made.media[static_cast<size_t>(m)];
    const bool video = parts[static_cast<size_t>(m)]->kind == PartKind::kVideo;
    sample.media.push_back({.kind = video ? MediaKind::kVideo : MediaKind::kImage,
                            .grid = media.grid,
                            .seconds_per_grid = media.seconds_per_grid,
                            .rows = {}});
  }
  return sample;
}

Sample QwenProcessor::make_blank(const Conversation& conversation) const {
  auto sample = make_without_pixels(conversation);
  std::fill(sample.labels.begin(), sample.labels.end(), static_cast<int32_t>(kIgnoreLabel));
  for (auto& medium : sample.media)
    medium.rows.assign(static_cast<size_t>(medium.grid.patches() * vision_.patch_dim()), 0.0F);
  return sample;
}

}  // namespace triptych
