#include <filesystem>

#include "base/error.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/inputs.h"
#include "train/save_model.h"

namespace triptych {
namespace {

namespace fs = std::filesystem;

int run_export(const Arguments& arguments) {
  const fs::path adapter = arguments.only("ADAPTER");
  const fs::path output = arguments.text("--output");
  require<UsageError>(!output.empty(), "export: --output is missing");
  require_folder(adapter, "adapter folder");
  if (arguments.has("--model")) require_folder(arguments.text("--model"), "model folder");
  require<UsageError>(!fs::exists(output) || fs::is_empty(output) || arguments.has("--overwrite"),
                      "export: ", output.string(),
                      " is there already; give --overwrite to replace it");
  fs::path base = arguments.text("--model");
  if (base.empty()) base = load_adapter(adapter).config.base_model;
  require<UsageError>(!base.empty(), "export: --model is missing, and the adapter names no base");

  auto loaded = load_model({.folder = base, .dtype = compute_type_of(base), .adapter = adapter});
  merge_adapters(loaded);
  if (arguments.has("--dtype")) {
    loaded.layout =
        with_dtype(loaded.layout, arguments.text("--dtype") == "fp32" ? at::kFloat : at::kBFloat16);
  }
  save_model(loaded, output);
  log_info("{} merged into {}: {}", adapter.string(), base.string(), output.string());
  return 0;
}

}  // namespace

Command export_command() {
  Command command;
  command.name = "export";
  command.summary = "Merge a LoRA adapter into its base model.";
  command.usage = "ADAPTER --model BASE --output DIR";
  command.flags = {
      {"--model", "BASE", "hub folder of the base; default: the one that the adapter names"},
      {"--output", "DIR", "folder to write: the base's files with the adapter added in"},
      {"--dtype",
       "NAME",
       "how weights are stored; default: as in the base",
       false,
       {"bf16", "fp32"}},
      {"--overwrite", "", "replace what is in the output folder"},
  };
  command.details = "W += scale B A is computed in fp32 and rounded once.";
  command.example = "triptych export runs/lora/final --model models/base --output models/merged";
  command.run = run_export;
  return command;
}

}  // namespace triptych
