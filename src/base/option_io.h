#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/options.h"

namespace triptych {

/// Where each value that is not a default came from: "train.steps" -> "run.toml:14",
/// "TRIPTYCH_TRAIN__STEPS" or "--set".
using OptionOrigins = std::map<std::string, std::string>;

/// Reads a run file into `options`. Every problem is added to `problems` as "file:line: key ...";
/// values with a problem are left as they were. Relative paths become absolute, seen from the
/// file's folder. @throws UsageError when the file cannot be read at all.
void read_options_file(OptionsRef options, const std::filesystem::path& file,
                       OptionOrigins& origins, Problems& problems);

/// The same for text; `folder` is what relative paths are relative to.
void read_options_text(OptionsRef options, std::string_view text, std::string_view origin,
                       const std::filesystem::path& folder, OptionOrigins& origins,
                       Problems& problems);

/// Reads variables "TRIPTYCH_SECTION__KEY=value" from an environment block such as `environ`.
/// Those with a "__" must name an option; others that start with TRIPTYCH_ are somebody else's
/// unless they name an option of the top level.
void read_options_environment(OptionsRef options, const char* const* environment,
                              const std::filesystem::path& folder, OptionOrigins& origins,
                              Problems& problems);

/// Reads one "a.b=value"; the value is TOML, or a bare word where the option takes strings. Tables
/// in a list are numbered: "data.train.0.path=x". `place` begins the messages, e.g. "--set".
void read_option_assignment(OptionsRef options, std::string_view assignment, std::string_view place,
                            const std::filesystem::path& folder, OptionOrigins& origins,
                            Problems& problems);

/// Where values come from, strongest last.
struct OptionSources {
  std::filesystem::path file;  ///< empty: none
  const char* const* environment = nullptr;
  std::vector<std::string> assignments;  ///< of --set, in order
};

/// All of the above. @throws UsageError with every problem, one a line.
OptionOrigins read_options(OptionsRef options, const OptionSources& sources);

/// One option with its value now.
struct OptionLine {
  std::string path;   ///< "train.steps", "data.train[0].path"
  OptionValue value;  ///< Unset: an optional without a value
  bool is_default = false;
  const OptionSchema* schema = nullptr;
};

/// Every value option in the order of declaration; of absent tables nothing.
std::vector<OptionLine> list_options(ConstOptionsRef options);

/// The whole configuration as TOML; reading it gives the same options again.
std::string options_toml(ConstOptionsRef options);

/// One line per option: "train.steps = 20   # run.toml:14"; with `only_changed`, without those that
/// have their default value and no origin.
std::string options_origin_text(ConstOptionsRef options, const OptionOrigins& origins,
                                bool only_changed = false);

/// One line of JSON with every option, keys in order of declaration: equal text means equal
/// options.
std::string options_json(ConstOptionsRef options);

/// XXH3 of options_json, for the check that all ranks run the same configuration.
uint64_t options_hash(ConstOptionsRef options);

}  // namespace triptych
