#include "cli/command.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <exception>
#include <filesystem>

#include "base/clock.h"
#include "base/error.h"
#include "base/files.h"
#include "base/format.h"
#include "base/log.h"
#include "base/suggest.h"
#include "base/terminal.h"
#include "cli/help.h"
#include "cli/output.h"
#include "cli/version.h"

namespace triptych {
namespace {

const Flag* find_flag(std::span<const Flag> flags, std::string_view name) {
  const auto at = std::ranges::find(flags, name, &Flag::name);
  return at == flags.end() ? nullptr : &*at;
}

void print_error(std::string_view text) {
  while (!text.empty()) {  // one "error:" per problem, with its indented lines below
    size_t end = 0;
    do {
      end = std::min(text.find('\n', end + 1), text.size());
    } while (end + 1 < text.size() && text[end + 1] == ' ');
    log_message(LogLevel::kError, text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

/// What went wrong was not foreseen: the user gets a file to send.
void report_bug(const std::exception& error, std::span<const std::string> words) {
  std::string what = error.what();
  std::string_view head = what;  // libtorch appends its backtrace here
  head = head.substr(0, head.find("\nException raised from"));
  print_error(fmt::format("internal: {}", head));
  std::string text = fmt::format("{}\n{}triptych", utc_time(wall_seconds()), version_text());
  for (const std::string& word : words) text += " " + word;
  text += "\n\n" + what + "\n";
  try {
    const auto path = std::filesystem::temp_directory_path() /
                      fmt::format("triptych_bug_{}.txt", utc_time_compact(wall_seconds()));
    write_file_atomically(path, text);
    print_error(
        fmt::format("this is a bug in triptych; a report was written to {}", path.string()));
  } catch (const std::exception&) {
    print_error("this is a bug in triptych; no report could be written");
  }
}

void apply_common(const Arguments& arguments) {
  const std::string color = arguments.text("--color", "auto");
  set_color_mode(color == "always"  ? ColorMode::kAlways
                 : color == "never" ? ColorMode::kNever
                                    : ColorMode::kAuto);
  if (arguments.has("-q")) set_log_level(LogLevel::kWarning);
  if (arguments.has("-v") || arguments.has("-vv")) set_log_level(LogLevel::kDebug);
}

const Command* find_command(std::span<const Command> commands, std::string_view name) {
  const auto at = std::ranges::find(commands, name, &Command::name);
  return at == commands.end() ? nullptr : &*at;
}

const Command& require_command(std::span<const Command> commands, const std::string& name) {
  const Command* command = find_command(commands, name);
  if (command != nullptr) return *command;
  std::vector<std::string> names{"help"};
  for (const Command& c : commands) names.push_back(c.name);
  const std::string nearest = nearest_name(name, names);
  fail<UsageError>("'", name, "' is not a command; ",
                   nearest.empty() ? "see triptych --help" : "nearest: " + nearest);
}

bool asks_help(std::span<const std::string> words) {
  for (const std::string& word : words) {
    if (word == "--") return false;
    if (word == "--help" || word == "-h") return true;
  }
  return false;
}

int dispatch(std::span<const Command> commands, std::span<const std::string> words) {
  if (words.empty() || words[0] == "--help" || words[0] == "-h") {
    print_output(overview_text(commands));
    return 0;
  }
  if (words[0] == "--version") {
    const bool json = words.size() > 1 && words[1] == "--json";
    require<UsageError>(words.size() == (json ? 2u : 1u), "--version takes only --json");
    print_output(json ? version_json() : version_text());
    return 0;
  }
  if (words[0] == "help") {
    require<UsageError>(words.size() <= 2, "help takes the name of one command");
    print_output(words.size() == 1 ? overview_text(commands)
                                   : help_text(require_command(commands, words[1])));
    return 0;
  }
  require<UsageError>(!words[0].starts_with('-'), words[0],
                      " is not a flag of triptych itself; flags come after the command");
  const Command& command = require_command(commands, words[0]);
  const auto rest = words.subspan(1);
  if (asks_help(rest)) {
    print_output(help_text(command));
    return 0;
  }
  const Arguments arguments(command.name, command.flags, rest);
  apply_common(arguments);
  return command.run(arguments);
}

}  // namespace

const std::vector<Flag>& common_flags() {
  static const std::vector<Flag> flags = {
      {"--color",
       "WHEN",
       "colours: auto (terminals only, unless NO_COLOR is set), always, never",
       false,
       {"auto", "always", "never"}},
      {"-q", "", "only warnings and errors"},
      {"-v", "", "more detail", true},
      {"-vv", "", "the same", true},
      {"--help", "", "this text; also -h"},
  };
  return flags;
}

Arguments::Arguments(std::string_view verb, std::span<const Flag> flags,
                     std::span<const std::string> words)
    : verb_(verb) {
  // A parser of our own, not CLI11: that one takes a value such as "[hi]" for a list and splits it,
  // which would change prompts.
  std::vector<Flag> all(flags.begin(), flags.end());
  all.insert(all.end(), common_flags().begin(), common_flags().end());
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (word == "--") {
      positional_.insert(positional_.end(), words.begin() + static_cast<std::ptrdiff_t>(i) + 1,
                         words.end());
      return;
    }
    if (!word.starts_with('-') || word == "-") {
      positional_.push_back(word);
      continue;
    }
    const size_t equals = word.find('=');
    const std::string name = word.substr(0, equals);
    const Flag* flag = find_flag(all, name);
    if (flag == nullptr) {
      std::vector<std::string> names;
      for (const Flag& f : all) names.push_back(f.name);
      const std::string nearest = nearest_name(name, names);
      fail<UsageError>(
          verb, ": ", name, " is not a flag; ",
          nearest.empty() ? fmt::format("see triptych {} --help", verb) : "nearest: " + nearest);
    }
    std::string value;
    if (flag->value.empty()) {
      require<UsageError>(equals == std::string::npos, verb, ": ", name, " takes no value");
    } else if (equals != std::string::npos) {
      value = word.substr(equals + 1);
    } else {
      require<UsageError>(i + 1 < words.size(), verb, ": ", name, " needs a value, ", name, " ",
                          flag->value);
      value = words[++i];
      // "--image --prompt Q": a value that really is a flag's name can be given as --image=--prompt
      require<UsageError>(find_flag(all, value) == nullptr, verb, ": ", name, " has no value, ",
                          name, " ", flag->value, "; ", value, " follows it");
    }
    require<UsageError>(
        flag->choices.empty() || std::ranges::find(flag->choices, value) != flag->choices.end(),
        verb, ": ", name, " = ", value, " is not a choice; allowed: ", join_names(flag->choices));
    std::vector<std::string>& values = values_[name];
    require<UsageError>(values.empty() || flag->repeats, verb, ": ", name, " is given twice");
    values.push_back(std::move(value));
  }
}

bool Arguments::has(std::string_view flag) const { return values_.contains(flag); }

std::string Arguments::text(std::string_view flag, std::string_view otherwise) const {
  const auto at = values_.find(flag);
  return at == values_.end() ? std::string(otherwise) : at->second.back();
}

std::vector<std::string> Arguments::all(std::string_view flag) const {
  const auto at = values_.find(flag);
  return at == values_.end() ? std::vector<std::string>{} : at->second;
}

int64_t Arguments::integer(std::string_view flag, int64_t otherwise, int64_t least) const {
  if (!has(flag)) return otherwise;
  const std::string word = text(flag);
  int64_t value = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  require<UsageError>(error == std::errc() && end == word.data() + word.size() && value >= least,
                      verb_, ": ", flag, " = ", word, " must be an integer of at least ", least);
  return value;
}

double Arguments::number(std::string_view flag, double otherwise, double least,
                         double greatest) const {
  if (!has(flag)) return otherwise;
  const std::string word = text(flag);
  double value = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  require<UsageError>(error == std::errc() && end == word.data() + word.size() &&
                          std::isfinite(value) && value >= least && value <= greatest,
                      verb_, ": ", flag, " = ", word, " must be a number from ", least, " to ",
                      greatest);
  return value;
}

const std::string& Arguments::only(std::string_view what) const {
  const std::string name(what);
  expect({&name, 1});
  return positional_[0];
}

void Arguments::expect(std::span<const std::string> names) const {
  require<UsageError>(positional_.size() >= names.size(), verb_, ": ",
                      positional_.size() < names.size() ? names[positional_.size()] : "",
                      " is missing; see triptych ", verb_, " --help");
  require<UsageError>(positional_.size() <= names.size(), verb_, ": '",
                      positional_.size() > names.size() ? positional_[names.size()] : "",
                      "' is one word too many");
}

int run_command_line(std::span<const Command> commands, std::span<const std::string> words) {
  int status = 1;
  try {
    status = dispatch(commands, words);
  } catch (const UsageError& error) {
    print_error(error.what());
    status = 2;
  } catch (const Error& error) {
    print_error(error.what());
  } catch (const OutputClosed&) {
    // nobody is there to hear of it
  } catch (const std::bad_alloc&) {
    print_error("out of memory");
  } catch (const std::exception& error) {
    report_bug(error, words);
  }
  return status;
}

}  // namespace triptych
