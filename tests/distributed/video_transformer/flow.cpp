// From samples to the flow of the first layer.

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "base/random.h"
#include "grid.h"
#include "model.h"
#include "nn/dropout.h"
#include "parallel/group.h"
#include "parallel/sequence_split.h"
#include "parallel/work_share.h"

namespace triptych::video_transformer {

namespace {

using Integers = std::vector<int64_t>;

at::Tensor host(const Integers& values) { return at::tensor(values, at::kLong); }

/// One token of the joint sequence.
struct Token {
  int64_t sample = 0;
  int64_t place = 0;     ///< in the sample
  int64_t text = -1;     ///< row among the text tokens; of a video token -1
  int64_t video = -1;    ///< number among the video tokens
  int64_t position = 0;  ///< of a video token: along its sample's video
};

int64_t padding(int64_t count, const ModelGroups& groups) {
  const int64_t ranks = groups.split_tokens() ? groups.tensor_size() : 1;
  return (ranks - count % ranks) % ranks;
}

class FlowMaker {
 public:
  FlowMaker(const Options& options, std::span<const SampleView> samples,
            const FlowSettings& settings)
      : options_(options), samples_(samples), settings_(settings), groups_(settings.groups) {}

  Flow make() {
    lay_out();
    add_text();
    share_tokens();
    add_joint();
    add_grid();
    add_video();
    return std::move(flow_);
  }

 private:
  /// Noise and time of a sample; v = a e - s x, x_t = a x + s e.
  double time(int64_t b) const {
    return uniform({settings_.seed, RandomStream::kTimestep}, 0, samples_[b].index);
  }

  void lay_out() {
    Integers text_bounds{0};
    bounds_ = {0};
    for (size_t b = 0; b < samples_.size(); ++b) {
      const auto& s = samples_[b];
      const auto video = s.frames * s.frame_tokens, words = static_cast<int64_t>(s.text.size());
      const auto sample = static_cast<int64_t>(b);
      for (int64_t i = 0; i < words; ++i)
        all_.push_back({.sample = sample, .place = i, .text = text_bounds.back() + i});
      for (int64_t i = 0; i < video; ++i)
        all_.push_back({.sample = sample, .place = words + i, .video = videos_++, .position = i});
      text_bounds.push_back(text_bounds.back() + words);
      bounds_.push_back(bounds_.back() + words + video);
      grids_.push_back({s.frames, s.frame_tokens});
    }
    text_bounds_ = text_bounds;
    words_ = text_bounds.back();
  }

  void add_text() {
    Integers ids, keys;
    for (const auto& s : samples_) {
      ids.insert(ids.end(), s.text.begin(), s.text.end());
      for (size_t i = 0; i < s.text.size(); ++i) keys.push_back(key(s.index, i, true));
    }
    auto bounds = text_bounds_;
    if (const auto more = padding(words_, groups_); more > 0) {
      ids.resize(ids.size() + static_cast<size_t>(more), 0);
      keys.resize(ids.size(), 0);
      bounds.push_back(words_ + more);
    }
    text_rows_ = static_cast<int64_t>(ids.size());
    flow_.set(field::kTextIds, host(ids));
    flow_.set(field::kTextBounds, host(bounds));
    if (settings_.dropout) flow_.set(field::kTextDropoutKeys, host(keys));
    std::vector<float> times;
    for (size_t b = 0; b < samples_.size(); ++b)
      times.push_back(static_cast<float>(time(static_cast<int64_t>(b))));
    flow_.set(field::kTime, at::tensor(times));
  }

  /// Which tokens of the joint sequence each context rank holds.
  void share_tokens() {
    const int64_t ranks = groups_.context_size();
    const int64_t R = ranks > 1 ? groups_.ring->size() : 1,
                  U = ranks > 1 ? groups_.ulysses->size() : 1;
    const SequenceSplit split(bounds_, R, U, /*zigzag=*/false);
    for (int64_t rank = 0; rank < ranks; ++rank) {
      auto& videos = joint_videos_.emplace_back();
      const auto rows = split.rows(rank / U, rank % U);
      for (const auto row : rows) {
        const auto& token = all_[static_cast<size_t>(row)];
        if (token.video >= 0) videos.push_back(token.video);
        if (rank == groups_.context_rank()) own_.push_back(token);
      }
    }
  }

  void add_joint() {
    const auto B = static_cast<int64_t>(samples_.size());
    Integers order, modulation, keys, video_rows, video_sample;
    const auto count = static_cast<int64_t>(own_.size());
    auto angles = at::zeros({count + padding(count, groups_), options_.head_dim() / 2});
    for (int64_t row = 0; row < count; ++row) {
      const auto& t = own_[static_cast<size_t>(row)];
      const auto& s = samples_[static_cast<size_t>(t.sample)];
      const bool video = t.video >= 0;
      order.push_back(video ? text_rows_ + static_cast<int64_t>(video_rows.size()) : t.text);
      modulation.push_back(t.sample + (video ? B : 0));
      keys.push_back(key(s.index, static_cast<uint64_t>(t.place), false));
      if (!video) continue;
      video_rows.push_back(row);
      video_sample.push_back(t.sample);
      // half of the angles turn with the frame, half with the place in it
      for (int64_t i = 0; i < options_.head_dim() / 2; ++i) {
        const auto at = i % 2 == 0 ? t.position / s.frame_tokens : t.position % s.frame_tokens;
        angles[row][i] = static_cast<double>(at) * std::pow(100.0, -static_cast<double>(i) / 4);
      }
    }
    auto bounds = bounds_;
    if (const auto more = padding(count, groups_); more > 0) {
      for (auto* list : {&order, &modulation, &keys})
        list->resize(static_cast<size_t>(count + more), 0);
      if (groups_.context_size() == 1) bounds.push_back(count + more);
    }
    flow_.set(field::kOrder, host(order));
    flow_.set(field::kModulationRows, host(modulation));
    flow_.set(field::kBounds, host(bounds));
    if (settings_.dropout) flow_.set(field::kDropoutKeys, host(keys));
    const auto both = at::cat({angles, angles}, 1);
    flow_.set(field::kCos, both.cos().to(settings_.dtype));
    flow_.set(field::kSin, both.sin().to(settings_.dtype));
    flow_.set(field::kVideoRows, host(video_rows));
    flow_.set(field::kVideoSample, host(video_sample));
    video_rows_ = video_rows;
  }

  /// Rows of `from` to send, and where the rows of `to` stand in what arrives.
  void add_route(const std::vector<Integers>& from, const std::vector<Integers>& to,
                 const Integers* row_of, const char* rows, const char* counts, const char* order) {
    const auto plan = plan_route(from, to, videos_, groups_.context_rank());
    auto sent = plan.rows;
    if (row_of != nullptr)
      for (auto& row : sent) row = (*row_of)[static_cast<size_t>(row)];
    flow_.set(rows, host(sent));
    flow_.set(counts, at::stack({host(plan.send), host(plan.receive)}));
    flow_.set(order, host(plan.arrival));
  }

  void add_grid() {
    const GridSplit split(grids_, groups_.context_size());
    std::vector<Integers> frames, places;
    for (int64_t rank = 0; rank < groups_.context_size(); ++rank) {
      frames.push_back(split.tokens_by_frames(rank));
      places.push_back(split.tokens_by_places(rank));
    }
    add_route(joint_videos_, frames, &video_rows_, field::kToGridRows, field::kToGridCounts,
              field::kToGridOrder);
    add_route(places, joint_videos_, nullptr, field::kFromGridRows, field::kFromGridCounts,
              field::kFromGridOrder);
    Integers sizes;
    for (const auto& g : grids_) sizes.insert(sizes.end(), {g.frames, g.places});
    flow_.set(field::kGrids, host(sizes).view({-1, 2}));
  }

  void add_video() {
    const int64_t F = options_.patch_values;
    std::vector<float> noisy, target, weights;
    for (const auto& t : own_) {
      if (t.video < 0) continue;
      const auto& s = samples_[static_cast<size_t>(t.sample)];
      const double angle = time(t.sample) * std::acos(0.0), a = std::cos(angle),
                   b = std::sin(angle);
      for (int64_t i = t.position * F; i < (t.position + 1) * F; ++i) {
        const double x = s.latents[static_cast<size_t>(i)];
        const double e =
            normal({settings_.seed, RandomStream::kNoise}, static_cast<uint64_t>(i), s.index);
        noisy.push_back(static_cast<float>(a * x + b * e));
        target.push_back(static_cast<float>(a * e - b * x));
      }
      weights.push_back(static_cast<float>(s.loss_weight));
    }
    const auto P = static_cast<int64_t>(weights.size());
    flow_.set(field::kLatents, at::tensor(noisy).view({P, F}).to(settings_.dtype));
    flow_.set(field::kTarget, at::tensor(target).view({P, F}));
    flow_.set(field::kWeights, at::tensor(weights));
  }

  int64_t key(uint64_t sample, uint64_t place, bool text) const {
    return dropout_key(settings_.seed, settings_.step, sample,
                       place | (uint64_t{text ? 1U : 0U} << 62));
  }

  const Options& options_;
  std::span<const SampleView> samples_;
  const FlowSettings& settings_;
  ModelGroups groups_;
  Flow flow_;
  std::vector<Token> all_, own_;
  Integers bounds_, text_bounds_, video_rows_;
  std::vector<Integers> joint_videos_;  ///< of each context rank, in the joint sequence
  std::vector<Grid> grids_;
  int64_t videos_ = 0, words_ = 0, text_rows_ = 0;
};

}  // namespace

Flow make_flow(const Options& options, std::span<const SampleView> samples,
               const FlowSettings& settings) {
  return FlowMaker(options, samples, settings).make();
}

}  // namespace triptych::video_transformer
