#include "cli/model_flags.h"

#include <ATen/Parallel.h>

#include "cli/inputs.h"
#include "parallel/launch_environment.h"
#include "parallel/process_context.h"

namespace triptych {

std::vector<Flag> model_flags() {
  return {
      {"--adapter", "DIR", "LoRA adapter (a folder of peft's files) to put on the model"},
      {"--device", "NAME", "where to compute (default cpu)", false, {"cpu", "cuda"}},
      {"--precision", "NAME", "default: as the weights are stored", false, {"fp32", "bf16"}},
      {"--template", "NAME", "chat template, as data.template: auto (default) or a known name"},
      {"--threads", "N", "compute threads; default: all cores"},
      {"--video-position-rule",
       "RULE",
       "how text positions go on after a video (default max_hw)",
       false,
       {"max_hw", "max_all"}},
  };
}

std::vector<Flag> sampling_flags() {
  return {
      {"--max-new-tokens", "N", "longest answer (default 256)"},
      {"--temperature", "T", "0 (default): always the likeliest token"},
      {"--top-p", "P", "sample from the likeliest tokens that together reach P (default 1)"},
      {"--repetition-penalty", "R", "above 1: tokens already there become less likely (default 1)"},
      {"--seed", "N", "of the sampling (default 0)"},
  };
}

AssistantRequest assistant_request(const Arguments& arguments, const std::string& model) {
  at::set_num_threads(
      static_cast<int>(threads_per_process(arguments.integer("--threads", 0, 1), 1)));
  require_folder(model, "model folder");
  if (arguments.has("--adapter")) require_folder(arguments.text("--adapter"), "adapter folder");
  AssistantRequest request{
      .model = model,
      .adapter = arguments.text("--adapter"),
      .device = at::Device(arguments.text("--device", "cpu")),
      .dtype = {},
      .video_position_rule = arguments.text("--video-position-rule", "max_hw"),
      .chat_template = arguments.text("--template", "auto"),
  };
  require_device(request.device);
  if (arguments.has("--precision"))
    request.dtype = arguments.text("--precision") == "fp32" ? at::kFloat : at::kBFloat16;
  return request;
}

GenerateOptions generate_options(const Arguments& arguments) {
  return {.max_new_tokens = arguments.integer("--max-new-tokens", 256, 1),
          .temperature = arguments.number("--temperature", 0, 0, 100),
          .top_p = arguments.number("--top-p", 1, 0, 1),
          .repetition_penalty = arguments.number("--repetition-penalty", 1, 0.01, 100),
          .seed = static_cast<uint64_t>(arguments.integer("--seed", 0, 0))};
}

}  // namespace triptych
