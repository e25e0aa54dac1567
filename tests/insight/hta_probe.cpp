// Prints the figures that HolisticTraceAnalysis would give: hta_probe FOLDER
#include <cstdio>

#include "insight/hta.h"

int main(int argc, char** argv) {
  using namespace triptych;
  if (argc != 2) return 2;
  auto run = insight::Run::find({argv[1]});
  run.load(1, nullptr, false);
  std::puts(dump_json(insight::hta_json(run)).c_str());
  return 0;
}
