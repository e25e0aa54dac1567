#include "train/run_data.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "train/run_setup.h"

namespace triptych {

std::unique_ptr<QwenProcessor> make_run_processor(const RunOptions& options) {
  require<UsageError>(!options.model.path.empty(),
                      "model.path is not set; training needs its tokenizer and processor files");
  return make_processor(options.data, options.model.path);
}

std::optional<Dataset> open_validation(const RunOptions& options) {
  if (options.data.validation.empty()) return std::nullopt;
  return open_dataset(options.data.validation, {});
}

LoaderLayout training_layout(const RunOptions& options, int64_t data_rank, int64_t data_size) {
  LoaderLayout layout{.data_rank = data_rank,
                      .data_size = data_size,
                      .global_batch = options.train.global_batch,
                      .micro_batch = options.train.micro_batch};
  if (options.parallel.balance_samples && data_size > 1) layout.cost = length_cost(options);
  return layout;
}

int64_t count_steps(const TrainOptions& train, Loader& loader) {
  if (train.epochs == 0) return train.steps;
  const double whole = std::floor(train.epochs);
  int64_t steps = whole > 0 ? loader.steps_of_epochs(static_cast<int64_t>(whole)) : 0;
  if (whole < train.epochs) {
    const auto epoch = static_cast<double>(loader.steps_of_epochs(1));
    steps += static_cast<int64_t>(std::ceil((train.epochs - whole) * epoch));
  }
  return train.steps > 0 ? std::min(steps, train.steps) : steps;
}

}  // namespace triptych
