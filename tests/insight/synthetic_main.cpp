// Writes the traces of a made-up run: insight_synthetic FOLDER [name=value]...
//   insight_synthetic /tmp/run data=8 steps=5 slow_rank=3 gz=1
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

#include "synthetic.h"

int main(int argc, char** argv) {
  using namespace triptych::insight;
  if (argc < 2) {
    std::fprintf(stderr, "usage: insight_synthetic FOLDER [name=value]...\n");
    return 2;
  }
  SyntheticOptions o;
  bool compress = false;
  const std::map<std::string, int*> ints = {{"data", &o.data},
                                            {"pipeline", &o.pipeline},
                                            {"ranks_per_host", &o.ranks_per_host},
                                            {"steps", &o.steps},
                                            {"layers", &o.layers},
                                            {"ops", &o.ops_per_layer},
                                            {"micro_batches", &o.micro_batches},
                                            {"slow_rank", &o.slow_rank},
                                            {"slow_link_from", &o.slow_link_from},
                                            {"slow_link_to", &o.slow_link_to},
                                            {"skewed_host", &o.skewed_host},
                                            {"stalled_rank", &o.stalled_rank}};
  const std::map<std::string, bool*> bools = {{"device", &o.device},       {"overlap", &o.overlap},
                                              {"memory", &o.memory},       {"shapes", &o.shapes},
                                              {"fractions", &o.fractions}, {"gz", &compress}};
  const std::map<std::string, int64_t*> longs = {{"compute_ns", &o.compute_ns},
                                                 {"gradient_bytes", &o.gradient_bytes},
                                                 {"message_bytes", &o.message_bytes},
                                                 {"skew_ns", &o.skew_ns},
                                                 {"stall_ns", &o.stall_ns}};
  const std::map<std::string, double*> doubles = {{"slow_factor", &o.slow_factor},
                                                  {"slow_link_share", &o.slow_link_share},
                                                  {"noise", &o.noise}};
  for (int i = 2; i < argc; ++i) {
    const std::string word = argv[i];
    const auto equal = word.find('=');
    const auto name = word.substr(0, equal);
    const std::string value = equal == std::string::npos ? "1" : word.substr(equal + 1);
    if (ints.contains(name))
      *ints.at(name) = std::atoi(value.c_str());
    else if (bools.contains(name))
      *bools.at(name) = value != "0";
    else if (longs.contains(name))
      *longs.at(name) = std::atoll(value.c_str());
    else if (doubles.contains(name))
      *doubles.at(name) = std::atof(value.c_str());
    else if (name == "seed")
      o.seed = std::strtoull(value.c_str(), nullptr, 10);
    else {
      std::fprintf(stderr, "%s: no such setting\n", name.c_str());
      return 2;
    }
  }
  for (const auto& path : write_synthetic_run(o, argv[1], compress)) std::puts(path.c_str());
  return 0;
}
