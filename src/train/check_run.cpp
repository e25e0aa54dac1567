#include "train/check_run.h"

#include "base/format.h"
#include "base/progress.h"
#include "train/loaded_model.h"
#include "train/run_data.h"
#include "train/run_setup.h"

namespace triptych {

std::string check_run(const ResolvedRun& run) {
  const auto& options = run.options;
  const auto processor = make_run_processor(options);
  const auto dataset = open_dataset(options.data.train, {});
  const auto validation = open_validation(options);
  auto request = model_request(options);
  request.meta_only = true;
  const auto loaded = load_model(request);
  return fmt::format("{}: {} parameters, {} trained; {} to train on, {} to validate on\n",
                     loaded.family->name(),
                     short_count(static_cast<double>(loaded.num_parameters())),
                     short_count(static_cast<double>(loaded.num_trained())),
                     counted(dataset.size(), "sample"), validation ? validation->size() : 0);
}

}  // namespace triptych
