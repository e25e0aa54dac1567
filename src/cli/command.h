#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace triptych {

/// One flag of a command; help, parsing and completion come from it.
struct Flag {
  std::string name;   ///< "--nproc"
  std::string value;  ///< what its value is called, "N"; empty: a switch
  std::string help;
  bool repeats = false;              ///< may be given several times
  std::vector<std::string> choices;  ///< all values allowed; empty: any
};

/// A command line after the verb, taken apart by a command's flags.
class Arguments {
 public:
  /// "--name value", "--name=value", switches, and positional words; "--" ends the flags. The
  /// flags of every command (--color, -q, -v) are taken too.
  /// @throws UsageError for an unknown flag (with the nearest), a missing or wrong value.
  Arguments(std::string_view verb, std::span<const Flag> flags, std::span<const std::string> words);

  bool has(std::string_view flag) const;
  /// The value, or `otherwise` when the flag was not given.
  std::string text(std::string_view flag, std::string_view otherwise = "") const;
  std::vector<std::string> all(std::string_view flag) const;
  /// @throws UsageError unless it is an integer of at least `least`.
  int64_t integer(std::string_view flag, int64_t otherwise, int64_t least) const;
  /// @throws UsageError unless it is a number in [least, greatest].
  double number(std::string_view flag, double otherwise, double least, double greatest) const;

  const std::vector<std::string>& positional() const { return positional_; }
  /// The only positional word. @throws UsageError naming `what` when it is missing or not alone.
  const std::string& only(std::string_view what) const;
  /// Exactly these words. @throws UsageError naming the first that is missing, or the surplus.
  void expect(std::span<const std::string> names) const;

 private:
  std::string verb_;
  std::map<std::string, std::vector<std::string>, std::less<>> values_;
  std::vector<std::string> positional_;
};

/// One verb.
struct Command {
  std::string name;
  std::string summary;  ///< one sentence with a full stop
  std::string usage;    ///< after "triptych train": "RUN.toml [--nproc N] [--set key=value]..."
  std::vector<Flag> flags;
  std::string details;  ///< more paragraphs for --help, or empty
  std::string example;  ///< a whole command line that runs
  std::string status =
      "0 done, 1 failed, 2 wrong options (nothing was started).";  ///< after "Exit status: "
  std::function<int(const Arguments&)> run;
};

/// Flags that every command takes.
const std::vector<Flag>& common_flags();

/// Runs one command line (without the program's name) and returns the exit status. Exceptions end
/// here: UsageError 2, everything else 1, with "error: ..." on standard error.
int run_command_line(std::span<const Command> commands, std::span<const std::string> words);

}  // namespace triptych
