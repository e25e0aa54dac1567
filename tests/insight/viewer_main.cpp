// `insight_viewer insight DIR ...`: the command alone, without libtorch, for the tests of the page.
#include <string>
#include <vector>

#include "cli/commands.h"

int main(int argc, char** argv) {
  const std::vector<triptych::Command> commands = {triptych::insight_command()};
  const std::vector<std::string> words(argv + 1, argv + argc);
  return triptych::run_command_line(commands, words);
}
