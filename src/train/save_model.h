#pragma once

// A model's weights back into files, from however many ranks hold them.

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/hub_folder.h"
#include "train/loaded_model.h"

namespace triptych {

/// Writes the model as a hub folder, or, with adapters, as a peft folder; the same whatever the
/// layout. All ranks that hold parts of the model call it at the same time.
/// @param writes  true on one of them.
void save_model(const LoadedModel& loaded, const std::filesystem::path& folder, bool writes = true);

/// Whether other ranks hold parts of the model: then values are gathered, by all at once.
bool is_spread(const LoadedModel& loaded);
/// The whole value of a parameter, from the ranks that hold it. All ranks that hold parts of the
/// model ask for the same parameters in the same order.
at::Tensor whole_value(const LoadedModel& loaded, const Parameter& parameter);

/// Whole tensors by stored name; where the model is spread, all ask for the same in the same order.
TensorProvider weight_provider(const LoadedModel& loaded);
/// Adapters' whole tensors by the name that peft stores.
std::vector<std::pair<std::string, at::Tensor>> adapter_tensors(const LoadedModel& loaded);

/// config.json and the other files beside the weights of a saved model.
std::vector<SideFile> model_side_files(const LoadedModel& loaded);

}  // namespace triptych
