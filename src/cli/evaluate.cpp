#include "base/format.h"
#include "base/log.h"
#include "base/terminal.h"
#include "cli/commands.h"
#include "cli/inputs.h"
#include "cli/model_flags.h"
#include "cli/output.h"

namespace triptych {
namespace {

Json to_json(const Evaluation& result) {
  Json answers = Json::array();
  for (const auto& answer : result.answers) {
    answers.push_back({{"record", answer.origin},
                       {"expected", answer.expected},
                       {"answer", answer.given},
                       {"exact", answer.exact}});
  }
  Json json = {
      {"samples", result.samples}, {"loss", result.loss}, {"label_tokens", result.label_tokens}};
  if (!result.answers.empty()) {
    json["exact"] = result.exact;
    json["exact_share"] = static_cast<double>(result.exact) / static_cast<double>(result.samples);
    json["answers"] = std::move(answers);
  }
  return json;
}

std::string to_text(const Evaluation& result) {
  auto text = fmt::format("samples      {}\nloss         {:.6f} over {} label tokens\n",
                          result.samples, result.loss, result.label_tokens);
  if (!result.answers.empty())
    text += fmt::format(
        "exact match  {}/{} ({:.1f} %)\n", result.exact, result.samples,
        100.0 * static_cast<double>(result.exact) / static_cast<double>(result.samples));
  return text;
}

int run_evaluate(const Arguments& arguments) {
  arguments.expect(std::vector<std::string>{"MODEL", "DATA"});
  require_file(arguments.positional()[1], "file of records");
  if (arguments.has("--media")) require_folder(arguments.text("--media"), "folder of media");
  const auto request = assistant_request(arguments, arguments.positional()[0]);
  const Dataset dataset({{.path = arguments.positional()[1], .media = arguments.text("--media")}});
  EvaluateOptions options{.limit = arguments.integer("--limit", 0, 1),
                          .answers = !arguments.has("--loss-only"),
                          .generate = generate_options(arguments),
                          .on_sample = {}};
  if (is_terminal(Stream::kStderr)) {
    options.on_sample = [](int64_t done, int64_t of) {
      set_live_line(fmt::format("{} of {}", done, of));
    };
  }
  const Assistant assistant(request);
  const auto result = evaluate(assistant, dataset, options);
  set_live_line("");
  const auto text =
      arguments.has("--json") ? dump_json(to_json(result), 2) + "\n" : to_text(result);
  print_output(text);
  return 0;
}

}  // namespace

Command evaluate_command() {
  Command command;
  command.name = "evaluate";
  command.summary = "Loss and exactly right answers of a model on a data file.";
  command.usage = "MODEL DATA [--media DIR] [--json]";
  command.flags = {
      {"--media", "DIR", "folder of the media; default: the data file's own"},
      {"--limit", "N", "only the first N records"},
      {"--loss-only", "", "do not generate answers"},
      {"--json", "", "for programs; with every answer"},
  };
  for (const auto& flags : {sampling_flags(), model_flags()})
    command.flags.insert(command.flags.end(), flags.begin(), flags.end());
  command.details =
      "The loss is the mean over the tokens of all assistant turns. An answer is exact when what "
      "the "
      "model generates for the last assistant turn equals the record's, but for white space at "
      "both "
      "ends.";
  command.example = "triptych evaluate runs/quickstart/final runs/quickstart/data/held_out.jsonl";
  command.run = run_evaluate;
  return command;
}

}  // namespace triptych
