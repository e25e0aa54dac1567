#pragma once

// The command `plan` as a shell calls it.

#include <sys/wait.h>

#include <cstdlib>
#include <string>

#include "base/files.h"
#include "base/format.h"
#include "support/paths.h"
#include "support/scratch.h"

namespace triptych {

struct Outcome {
  int status = -1;
  std::string out, err;
};

/// @param variables  for its environment, as a shell writes them
inline Outcome plan(const std::string& words, const std::string& variables = "") {
  const Scratch folder;
  const auto out = folder / "out", err = folder / "err";
  const int status = std::system(fmt::format("{} {} plan {} > {} 2> {}", variables,
                                             triptych_command(), words, out.string(), err.string())
                                     .c_str());
  return {WEXITSTATUS(status), read_file(out), read_file(err)};
}

}  // namespace triptych
