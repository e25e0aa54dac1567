#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/json.h"

namespace triptych::testing_ranks {

/// What a rank runs: gets its configuration, returns its exit status.
using Scenario = std::function<int(const Json& config)>;

/// Registered before `run_main`, so that the copies of this program find it by name.
void add_scenario(const std::string& name, Scenario scenario);

/// The `main` of a test program: a scenario in a copy, else the tests.
int run_main(int argc, char** argv);

struct RankEnd {
  int status = -1;     ///< exit status; 128 + signal when killed
  std::string output;  ///< standard output and error
};

struct Started {
  double seconds = 0;
  std::vector<RankEnd> ranks;
};

enum class Store { kInherited, kByPort };

/// Starts `count` ranks, forks of a copy of this program, with torchrun's variables on 127.0.0.1,
/// and waits for all of them; those still running after `limit_s` are killed.
/// @param environment  more variables; an empty value takes one away
Started run_ranks(int count, const std::string& scenario, const Json& config, double limit_s = 60,
                  Store store = Store::kInherited,
                  const std::map<std::string, std::string>& environment = {});

/// Starts one copy without any launcher's variables.
RankEnd run_alone(const std::string& scenario, const Json& config, double limit_s = 60);

/// A free port and the socket that listens on it.
struct Port {
  int number = 0, socket = -1;
};
Port listen_somewhere();

}  // namespace triptych::testing_ranks
