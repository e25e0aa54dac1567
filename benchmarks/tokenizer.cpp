// Tokens per second of one thread: bench_tokenizer TOKENIZER.json TEXT prints one JSON line.
// Each line of TEXT is encoded by itself, as benchmarks/compare.py does it with the reference.

#include "data/text/tokenizer.h"

#include <algorithm>
#include <ctime>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

#include "base/files.h"
#include "base/format.h"

int main(int argc, char** argv) {
  using namespace triptych;
  if (argc != 3) {
    std::cerr << "usage: bench_tokenizer TOKENIZER.json TEXT\n";
    return 2;
  }
  try {
    const auto tokenizer = Tokenizer::from_json_file(argv[1]);
    const auto text = read_file(argv[2]);
    constexpr int kRounds = 5;
    double best = 1e30;
    size_t tokens = 0;
    for (int round = 0; round < kRounds; ++round) {
      const std::clock_t start = std::clock();
      tokens = 0;
      std::vector<int32_t> ids;
      for (size_t begin = 0; begin < text.size();) {
        const size_t end = std::min(text.find('\n', begin), text.size());
        ids.clear();
        tokenizer.encode_to(std::string_view(text).substr(begin, end - begin), ids);
        tokens += ids.size();
        begin = end + 1;
      }
      best = std::min(best, static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC);
    }
    std::cout << fmt::format(R"({{"bench": "tokenizer", "tokens": {}, "mtok_per_s": {:.3f}}})",
                             tokens, static_cast<double>(tokens) / best / 1e6)
              << std::endl;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 1;
  }
}
