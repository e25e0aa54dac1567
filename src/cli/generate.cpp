#include "base/error.h"
#include "cli/commands.h"
#include "cli/inputs.h"
#include "cli/model_flags.h"
#include "cli/output.h"

namespace triptych {
namespace {

int run_generate(const Arguments& arguments) {
  const auto& model = arguments.only("MODEL");
  require<UsageError>(arguments.has("--prompt"), "generate: --prompt is missing");
  const auto prompt =
      make_prompt(arguments.text("--prompt"), arguments.all("--image"), arguments.all("--video"));
  const auto options = generate_options(arguments);
  for (const auto& image : arguments.all("--image")) require_file(image, "picture");
  for (const auto& video : arguments.all("--video")) require_file(video, "video");
  const Assistant assistant(assistant_request(arguments, model));
  assistant.answer(prompt, options, [](const std::string& piece) { print_output(piece); });
  print_output("\n");
  return 0;
}

}  // namespace

Command generate_command() {
  Command command;
  command.name = "generate";
  command.summary = "Answer a prompt about pictures and videos.";
  command.usage = "MODEL [--image FILE]... [--video FILE]... --prompt TEXT";
  command.flags = {
      {"--prompt", "TEXT", "what to answer; <image> and <video> in it place the media"},
      {"--image", "FILE", "a picture; before the text unless the prompt places it", true},
      {"--video", "FILE", "a video, likewise", true},
  };
  for (const auto& flags : {sampling_flags(), model_flags()})
    command.flags.insert(command.flags.end(), flags.begin(), flags.end());
  command.details = "The answer alone goes to standard output, as it comes.";
  command.example =
      "triptych generate runs/quickstart/final --image photo.jpg --prompt \"What is this?\"";
  command.run = run_generate;
  return command;
}

}  // namespace triptych
