#include "plan/plan_data.h"

#include <algorithm>
#include <array>
#include <iterator>

#include "base/format.h"
#include "base/progress.h"
#include "train/run_data.h"
#include "train/run_layers.h"

namespace triptych {

namespace {

double share(int64_t part, int64_t whole) {
  return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 0;
}

void count(DataSummary& summary, const Row& row, const QwenVision& vision) {
  int64_t tokens = 0;
  for (const auto& sample : row.samples) {
    const auto length = static_cast<int64_t>(sample.tokens.size());
    tokens += length;
    summary.longest_sample = std::max(summary.longest_sample, length);
    summary.media += static_cast<int64_t>(sample.media.size());
    for (const auto& medium : sample.media) summary.picture_tokens += vision.tokens(medium.grid);
  }
  ++summary.rows;
  summary.tokens += tokens;
  summary.longest_row = std::max(summary.longest_row, tokens);
}

/// What memory grows with.
struct Load {
  std::array<int64_t, 3> of{};  ///< tokens, patches, label tokens
  size_t at = 0;                ///< among all micro-batches

  bool covers(const Load& other) const {
    for (size_t i = 0; i < of.size(); ++i) {
      if (of[i] < other.of[i]) return false;
    }
    return true;
  }
};

/// Those that no other one covers, the first of several alike.
std::vector<Load> front_of(std::vector<Load> loads) {
  std::ranges::stable_sort(loads, std::ranges::greater(), &Load::of);
  std::vector<Load> front;
  for (const auto& load : loads) {
    // Whatever covers it comes before it in this order.
    const bool covered =
        std::ranges::any_of(front, [&](const Load& other) { return other.covers(load); });
    if (!covered) front.push_back(load);
  }
  return front;
}

/// At most so many: those that have the most of something, then by the sum of their shares of the
/// most.
void shorten(std::vector<Load>& front, size_t most) {
  std::array<int64_t, 3> largest{};
  for (const auto& load : front) {
    for (size_t i = 0; i < largest.size(); ++i) largest[i] = std::max(largest[i], load.of[i]);
  }
  const auto rank = [&](const Load& load) {
    double sum = 0;
    bool has_most = false;
    for (size_t i = 0; i < largest.size(); ++i) {
      sum += share(load.of[i], largest[i]);
      has_most = has_most || (load.of[i] == largest[i] && largest[i] > 0);
    }
    return std::pair(has_most, sum);
  };
  std::ranges::stable_sort(front, std::ranges::greater(), rank);
  front.resize(std::min(front.size(), most));
}

}  // namespace

double DataSummary::samples_a_row() const { return share(samples, rows); }
double DataSummary::picture_share() const { return share(picture_tokens, tokens); }

std::string data_text(const DataSummary& data) {
  auto text = fmt::format(
      "data: {} of {}; {} looked at, the first {}: rows of {:.1f} samples and {:.0f} tokens, the "
      "longest {}, {:.0f} % picture tokens",
      counted(data.sources, "source"), counted(data.records, "record"),
      counted(data.samples, "sample"), counted(data.steps, "step"), data.samples_a_row(),
      share(data.tokens, data.rows), data.longest_row, 100 * data.picture_share());
  if (data.skipped > 0) text += fmt::format("; {} skipped", counted(data.skipped, "bad record"));
  return text + "\n";
}

Json data_json(const DataSummary& data) {
  return {{"sources", data.sources},
          {"records", data.records},
          {"samples", data.samples},
          {"skipped", data.skipped},
          {"steps", data.steps},
          {"rows", data.rows},
          {"tokens", data.tokens},
          {"picture_tokens", data.picture_tokens},
          {"media", data.media},
          {"longest_row", data.longest_row},
          {"longest_sample", data.longest_sample},
          {"samples_a_row", data.samples_a_row()},
          {"picture_share", data.picture_share()}};
}

PlanData read_plan_data(const RunOptions& options, int64_t most_samples) {
  const auto processor = make_run_processor(options);
  const auto dataset = open_dataset(options.data.train, {});
  PlanData data;
  data.rows = read_step_rows(dataset, *processor, loader_options(options.data),
                             static_cast<uint64_t>(options.seed), options.train.global_batch,
                             {.samples = most_samples, .steps = options.train.steps});
  auto& summary = data.summary;
  summary.sources = dataset.num_sources();
  summary.records = dataset.size();
  summary.samples = data.rows.samples;
  summary.skipped = data.rows.skipped;
  summary.steps = static_cast<int64_t>(data.rows.steps.size());
  for (const auto& step : data.rows.steps) {
    for (const auto& row : step) count(summary, row, processor->vision());
  }
  return data;
}

MicroBatch typical_micro_batch(const RunOptions& options, const Family& family) {
  MicroBatch batch;
  for (int64_t i = 0; i < options.train.micro_batch; ++i)
    batch.rows.push_back(family.typical_row(options.data.max_length));
  return batch;
}

PlannedRows::PlannedRows(const RunOptions& options, const Family& family, int64_t data_ranks,
                         const PlanData* data)
    : data_(data) {
  if (typical()) {
    const auto count = options.train.global_batch / (options.train.micro_batch * data_ranks);
    typical_.assign(static_cast<size_t>(std::max<int64_t>(1, count)),
                    typical_micro_batch(options, family));
    return;
  }
  auto layout = training_layout(options, 0, data_ranks);
  for (layout.data_rank = 0; layout.data_rank < data_ranks; ++layout.data_rank)
    layouts_.push_back(layout);
}

std::vector<MicroBatch> PlannedRows::first_step(int64_t data_rank) const {
  return typical() ? typical_
                   : share_of_rank(layouts_.at(static_cast<size_t>(data_rank)),
                                   data_->rows.steps.front());
}

std::vector<MicroBatch> PlannedRows::fullest(const Family& family) const {
  if (typical()) return {typical_.front()};
  constexpr size_t kMost = 8;
  std::vector<MicroBatch> all;
  for (const auto& step : data_->rows.steps) {
    for (const auto& layout : layouts_)
      std::ranges::move(share_of_rank(layout, step), std::back_inserter(all));
  }
  std::vector<Load> loads;
  for (size_t i = 0; i < all.size(); ++i) {
    const auto size = family.flow_size(all[i]);
    loads.push_back({{size.tokens, size.patches, size.label_tokens}, i});
  }
  auto front = front_of(std::move(loads));
  shorten(front, kMost);
  std::vector<MicroBatch> chosen;
  for (const auto& load : front) chosen.push_back(std::move(all[load.at]));
  return chosen;
}

int64_t PlannedRows::dearest(const Family& family, const Model& model) const {
  if (typical()) return 0;
  int64_t best = 0;
  double most = -1;
  for (int64_t rank = 0; rank < static_cast<int64_t>(layouts_.size()); ++rank) {
    double flop = 0;
    for (const auto& batch : first_step(rank))
      flop += training_flop(model, family.flow_size(batch));
    if (flop > most) best = rank;
    most = std::max(most, flop);
  }
  return best;
}

}  // namespace triptych
