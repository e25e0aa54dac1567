#include "train/verify.h"

#include <cstdio>

#include "cli/commands.h"
#include "parallel/process_context.h"

namespace triptych {
namespace {

int run_verify(const Arguments& arguments) {
  const at::Device device(arguments.text("--device", "cpu"));
  require_device(device);
  const auto table = verify_folder(arguments.only("FOLDER"), device);
  const std::string text =
      arguments.has("--json") ? dump_json(table.json(), 2) + "\n" : table.text();
  std::fwrite(text.data(), 1, text.size(), stdout);
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
