#include "train/check_run.h"

#include "base/format.h"
#include "base/progress.h"
#include "train/loaded_model.h"
#include "train/run_data.h"
#include "train/run_setup.h"

namespace triptych {

namespace {

/// Reads what the first micro-batch needs: a file, picture or template that cannot be read is found
/// now and not in the first step.
std::string describe_first_rows(const RunOptions& options, const Dataset& dataset,
                                const QwenProcessor& processor) {
  const int64_t count = options.train.micro_batch;
  Loader loader(dataset, processor, loader_options(options.data),
                static_cast<uint64_t>(options.seed),
                {.data_rank = 0, .data_size = 1, .global_batch = count, .micro_batch = count});
  const auto batch = loader.next_step();
  size_t samples = 0, tokens = 0, media = 0;
  for (const auto& rows : batch.micro_batches) {
    for (const auto& row : rows.rows) {
      samples += row.samples.size();
      for (const auto& sample : row.samples) {
        tokens += sample.tokens.size();
        media += sample.media.size();
      }
    }
  }
  return fmt::format("the first micro-batch: {} samples, {} tokens, {} pictures and videos\n",
                     samples, tokens, media);
}

}  // namespace

std::string check_run(const ResolvedRun& run) {
  const auto& options = run.options;
  const auto processor = make_run_processor(options);
  const auto dataset = open_dataset(options.data.train, {});
  const auto validation = open_validation(options);
  auto request = model_request(options);
  request.meta_only = true;
  const auto loaded = load_model(request);
  return fmt::format("{}: {} parameters, {} trained; {} samples to train on, {} to validate on\n",
                     loaded.family->name(),
                     short_count(static_cast<double>(loaded.num_parameters())),
                     short_count(static_cast<double>(loaded.num_trained())), dataset.size(),
                     validation ? validation->size() : 0) +
         describe_first_rows(options, dataset, *processor);
}

}  // namespace triptych
