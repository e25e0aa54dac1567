#pragma once

#include <exception>
#include <string_view>

namespace triptych {

/// Whoever read standard output went away (`| head`) and SIGPIPE is ignored: nothing to complain
/// about, but no use in going on.
class OutputClosed : public std::exception {};

/// Prints the answer of a command: all of it, at once, to standard output.
/// @throws OutputClosed; Error when it cannot be written (a full disk)
void print_output(std::string_view text);

}  // namespace triptych
