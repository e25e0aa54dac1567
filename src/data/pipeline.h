#pragma once

// From the [data] tables of a run file to the objects of this folder.

#include <filesystem>
#include <memory>
#include <vector>

#include "data/dataset.h"
#include "data/loader.h"
#include "data/options.h"
#include "data/qwen_processor.h"

namespace triptych {

/// @param run_folder  what relative paths in the options are relative to; empty: the current folder
/// @throws UsageError on a format that no model here reads yet; DataError as Dataset.
Dataset open_dataset(const std::vector<DataSourceOptions>& sources,
                     const std::filesystem::path& run_folder);

/// The processor of a model folder: tokenizer, template, picture options, with what the run file
/// sets. @throws DataError, UsageError naming file or key.
std::unique_ptr<QwenProcessor> make_processor(const DataOptions& options,
                                              const std::filesystem::path& model_folder);

/// For training.
LoaderOptions loader_options(const DataOptions& options);

/// For one pass over validation data: the order of the files, one sample a row unless packing.
LoaderOptions validation_options(const DataOptions& options);

/// What the run file sets of pictures and video.
VisionOverrides vision_overrides(const DataOptions& options);

EncodeOptions encode_options(const DataOptions& options);

}  // namespace triptych
