#include "train/verify.h"

#include "cli/commands.h"
#include "cli/inputs.h"
#include "cli/output.h"
#include "parallel/process_context.h"

namespace triptych {
namespace {

int run_verify(const Arguments& arguments) {
  const at::Device device(arguments.text("--device", "cpu"));
  require_device(device);
  const auto& folder = arguments.only("FOLDER");
  require_folder(folder, "folder");
  const auto table = verify_folder(folder, device);
  const std::string text =
      arguments.has("--json") ? dump_json(table.json(), 2) + "\n" : table.text();
  print_output(text);
  return table.ok() ? 0 : 1;
}

}  // namespace

Command verify_command() {
  Command command;
  command.name = "verify";
  command.summary = "Compare this build with expected results of the reference libraries.";
  command.usage = "FOLDER [--device NAME] [--json]";
  command.flags = {{"--device", "NAME", "where to compute (default cpu)", false, {"cpu", "cuda"}},
                   {"--json", "", "for programs"}};
  command.details =
      "FOLDER is made by a script of tests/parity: a tiny checkpoint, inputs, and what the "
      "reference "
      "computes from them.";
  command.example = "triptych verify build/release/parity/qwen2_5_vl";
  command.status =
      "0 all within tolerance, 1 failed or a quantity is beyond its tolerance, 2 wrong options.";
  command.run = run_verify;
  return command;
}

}  // namespace triptych
