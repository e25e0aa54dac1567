#pragma once

// Where tests find things. Only paths.cpp knows the clone's place, so that a compiler cache serves
// the objects of all other tests to any clone.

#include <string>

namespace triptych {

std::string source_dir();        ///< the repository
std::string triptych_command();  ///< the command that this build makes
std::string torch_dir();         ///< the package `torch` that this build uses

}  // namespace triptych
