#pragma once

#include "cli/command.h"
#include "train/assistant.h"

namespace triptych {

/// Flags of the commands that answer with a model.
std::vector<Flag> model_flags();
std::vector<Flag> sampling_flags();

/// `model` and what model_flags() say; also sets the number of compute threads.
AssistantRequest assistant_request(const Arguments& arguments, const std::string& model);
GenerateOptions generate_options(const Arguments& arguments);

}  // namespace triptych
