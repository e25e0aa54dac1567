#include "data/step_rows.h"

#include "base/error.h"
#include "data/step_layout.h"

namespace triptych {

StepRows read_step_rows(const Dataset& dataset, const Processor& processor, LoaderOptions options,
                        uint64_t seed, int64_t global_batch, const StepRowsLimit& limit) {
  options.pixels = false;
  options.steps_ahead = 1;  // what lies beyond the limit need not be read
  // One rank with micro-batches of one row has the rows of a step in the order of the stream.
  Loader loader(dataset, processor, options, seed,
                {.data_rank = 0, .data_size = 1, .global_batch = global_batch, .micro_batch = 1});
  StepRows read;
  for (;;) {
    auto batch = loader.next_step();
    auto& rows = read.steps.emplace_back();
    for (auto& micro_batch : batch.micro_batches)
      rows.push_back(std::move(micro_batch.rows.front()));
    read.samples += batch.local.samples;
    const auto steps = static_cast<int64_t>(read.steps.size());
    if (read.samples >= limit.samples || batch.epoch >= 1 || steps == limit.steps) break;
  }
  read.skipped = loader.skipped().bad;
  return read;
}

std::vector<MicroBatch> share_of_rank(const LoaderLayout& layout, std::span<const Row> step) {
  check(layout);
  require(static_cast<int64_t>(step.size()) == layout.global_batch, "step layout: ", step.size(),
          " rows of a step of ", layout.global_batch);
  std::vector<PlannedRow> planned;
  for (const auto& row : step) {
    auto& items = planned.emplace_back().items;
    for (const auto& sample : row.samples)
      items.push_back({.position = 0, .length = static_cast<int32_t>(sample.tokens.size())});
  }
  std::vector<MicroBatch> share;
  for (const auto& place : lay_out(layout, planned)) {  // micro-batch by micro-batch
    if (place.in_micro_batch == 0) share.emplace_back();
    share.back().rows.push_back(step[place.row]);
  }
  return share;
}

}  // namespace triptych
