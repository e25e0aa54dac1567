#pragma once

// What the programs that measure memory have in common: a Qwen2.5-VL of any text sizes with a tower
// next to nothing, its samples, flags of the command line, tables.

#include <array>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "kernels/memory_ledger.h"
#include "parallel/process_context.h"
#include "train/family.h"

namespace triptych::bench {

constexpr double kMiB = 1 << 20;

/// Of the text model. Heads are of 64 numbers.
struct SmallSizes {
  int64_t hidden, intermediate, layers, key_value_heads, vocabulary;
};
Json small_config(const SmallSizes& sizes);
std::unique_ptr<Family> small_family(const SmallSizes& sizes);

/// One row of samples of `length` tokens each (the last may be shorter), `tokens` in all.
struct RowShape {
  int64_t tokens, length, vocabulary;
  int64_t label_every = 1;  ///< every so many tokens carry a label
};
MicroBatch small_row(const RowShape& shape);

using Flags = std::map<std::string, std::string>;
/// @param flags  the known ones with their defaults; what the command line gives replaces them.
/// @throws UsageError for others.
Flags read_flags(const std::vector<std::string>& words, Flags flags);
/// "1,2,4"
std::vector<int64_t> read_numbers(const std::string& text);

/// A line of a Markdown table: `| a | b |`, at once on standard output.
void print_row(const std::vector<std::string>& cells);
/// Head and rule; the first `words` columns hold words, the others numbers.
void print_head(const std::vector<std::string>& cells, size_t words = 0);

/// The most memory of any rank, in MiB.
struct Peak {
  double total = 0;                          ///< in tensors, by the books
  std::array<double, kMemoryKinds> kinds{};  ///< of the rank with the highest total, at that moment
  double resident = 0;  ///< of any process, since its start: with what is not in the books
  double of(std::initializer_list<MemoryKind> of_kinds) const;
};
/// Since the last call, or since reset_memory_peak(). All ranks call it; the numbers are the same
/// on all of them.
Peak take_peak(ProcessContext& process);
Json to_json(const Peak& peak);
Peak peak_from(const Json& json);

/// Starts this program on so many ranks with the words `--rank FILE WORDS...`; rank 0 writes FILE.
/// @throws Error when a rank fails.
Json run_ranks(const std::string& program, int64_t ranks, const std::vector<std::string>& words);

/// The `main` of such a program.
int guarded_main(int argc, char** argv, int (*run)(const std::vector<std::string>& words));

}  // namespace triptych::bench
