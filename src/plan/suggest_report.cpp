// The layouts found, for people, programs and run files.

#include <algorithm>
#include <set>

#include "base/format.h"
#include "base/option_io.h"
#include "base/progress.h"
#include "plan/suggest.h"

namespace triptych {

namespace {

/// A section with the keys that do not have their default value, and those of `always`.
std::string section_toml(const std::string& name, ConstOptionsRef options,
                         const std::set<std::string>& always) {
  auto text = fmt::format("[{}]\n", name);
  std::string table;
  for (const auto& line : list_options(options)) {
    if (line.value.is_unset() || (line.is_default && !always.contains(line.path))) continue;
    const auto dot = line.path.find('.');
    if (dot != std::string::npos && line.path.substr(0, dot) != table) {
      table = line.path.substr(0, dot);
      text += fmt::format("\n[{}.{}]\n", name, table);
    }
    text +=
        fmt::format("{} = {}\n", dot == std::string::npos ? line.path : line.path.substr(dot + 1),
                    value_text(line.value));
  }
  return text;
}

}  // namespace

std::string layout_toml(const RunOptions& o, const RunOptions& given) {
  std::set<std::string> always{"tensor", "sequence", "pipeline", "virtual", "context", "zero"};
  const auto say_auto = [&](const char* key, const LayerSplit& before) {
    if (!std::holds_alternative<Auto>(before)) always.insert(key);
  };
  say_auto("vision_layers", given.parallel.vision_layers);
  say_auto("text_layers", given.parallel.text_layers);
  say_auto("transformer_layers", given.parallel.transformer_layers);
  return section_toml("parallel", o.parallel, always) + "\n" +
         section_toml("recompute", o.recompute, {"policy"});
}

std::string suggestions_text(const Suggestions& found, const Machine& machine,
                             const SuggestRequest& request) {
  auto text = fmt::format(
      "{} layouts of {} devices with {} run; {} slower or larger at best, {} not tried, {} "
      "impossible\n",
      found.tried, request.devices, bytes_text(static_cast<double>(request.memory_bytes)),
      found.left_out, found.untried, found.impossible);
  if (found.data) text += data_text(*found.data);
  size_t number = 0;
  for (const auto& s : found.fitting) {
    if (number == request.count) break;
    text +=
        fmt::format("\n{}. {}: {:.3g} s a step on {}, {} tokens/s, {} of {}\n   {}\n\n", ++number,
                    s.name, s.time.step, machine.name, short_count(s.time.tokens_per_second),
                    bytes_text(static_cast<double>(s.bytes)),
                    bytes_text(static_cast<double>(request.memory_bytes)), s.why);
    text += s.toml;
  }
  if (found.fitting.empty()) {
    text += found.untried == 0
                ? "\nnone fits: more devices, a shorter data.max_length, LoRA or freezing would "
                  "change that\n"
                : "\nnone of those run fits; others were not tried\n";
  }
  if (!found.others.empty()) text += "\ndo not fit\n";
  for (size_t i = 0; i < std::min<size_t>(8, found.others.size()); ++i)
    text += fmt::format("  {}: {}\n", found.others[i].name, found.others[i].why);
  return text;
}

Json suggestions_json(const Suggestions& found) {
  const auto list = [](const std::vector<Suggestion>& suggestions) {
    Json json = Json::array();
    for (const auto& s : suggestions) {
      json.push_back({{"layout", s.name},
                      {"step_seconds", s.time.step},
                      {"tokens_per_second", s.time.tokens_per_second},
                      {"mfu", s.time.mfu},
                      {"bytes", s.bytes},
                      {"why", s.why},
                      {"toml", s.toml}});
    }
    return json;
  };
  Json json{{"fitting", list(found.fitting)}, {"not_fitting", list(found.others)},
            {"tried", found.tried},           {"left_out", found.left_out},
            {"untried", found.untried},       {"impossible", found.impossible}};
  if (found.data) json["data"] = data_json(*found.data);
  return json;
}

}  // namespace triptych
