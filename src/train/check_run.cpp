#include "train/check_run.h"

#include "base/error.h"
#include "base/files.h"
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
  int64_t samples = 0, tokens = 0, media = 0;
  for (const auto& rows : batch.micro_batches) {
    for (const auto& row : rows.rows) {
      samples += static_cast<int64_t>(row.samples.size());
      for (const auto& sample : row.samples) {
        tokens += static_cast<int64_t>(sample.tokens.size());
        media += static_cast<int64_t>(sample.media.size());
      }
    }
  }
  return fmt::format("the first micro-batch: {}, {}; pictures and videos: {}\n",
                     counted(samples, "sample"), counted(tokens, "token"), media);
}

void check_sources(const std::vector<DataSourceOptions>& sources, std::string_view name,
                   Problems& problems) {
  for (size_t i = 0; i < sources.size(); ++i) {
    const auto& source = sources[i];
    const auto file = file_problem(source.path, "file of records");
    problems.check(file.empty(), name, ".", i, ".path: ", source.path.string(), ": ", file);
    if (source.media.empty()) continue;
    const auto folder = folder_problem(source.media, "folder of media");
    problems.check(folder.empty(), name, ".", i, ".media: ", source.media.string(), ": ", folder);
  }
}

}  // namespace

void check_inputs(const RunOptions& options) {
  Problems problems;
  const auto folder = [&](std::string_view key, const std::filesystem::path& path,
                          std::string_view what) {
    const auto problem = path.empty() ? std::string() : folder_problem(path, what);
    problems.check(problem.empty(), key, ": ", path.string(), ": ", problem);
  };
  std::error_code error;
  problems.check(!std::filesystem::exists(options.output, error) ||
                     std::filesystem::is_directory(options.output, error),
                 "output: ", options.output.string(), ": is a file, a folder is expected");
  folder("model.path", options.model.path, "model folder");
  check_sources(options.data.train, "data.train", problems);
  check_sources(options.data.validation, "data.validation", problems);
  if (const auto* path = std::get_if<std::filesystem::path>(&options.checkpoint.resume))
    folder("checkpoint.resume", *path, "checkpoint folder");
  problems.throw_if_any();
}

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
                     counted(dataset.size(), "sample"), validation ? validation->size() : 0) +
         describe_first_rows(options, dataset, *processor);
}

}  // namespace triptych
