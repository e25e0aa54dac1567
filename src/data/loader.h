#pragma once

// Rows of the run's stream, decoded ahead of the step by threads of their own.
//
//   records -> lengths (headers only) -> rows of the stream -> this rank's share -> decoding ->
//   step
//
// One planning thread walks the stream; it and the decoding use the same pool of workers. What is
// decoded ahead is bounded in bytes. The order of everything is fixed by (seed, epoch, lengths),
// and the threads only change when it is ready.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/processor.h"
#include "data/row_stream.h"
#include "data/sample.h"

namespace triptych {

/// Which rows of a step are this rank's: row g goes to data rank (g / b) mod D as part of its
/// micro-batch g / (b D), with b = micro_batch and D = data_size. So a step holds the same rows in
/// every layout.
struct LoaderLayout {
  int64_t data_rank = 0, data_size = 1;
  int64_t global_batch =
      1;  ///< rows per step over all ranks; a multiple of micro_batch * data_size
  int64_t micro_batch = 1;
  /// Given: the rows of a step go to its places by what they cost instead (`balance_rows`); the sum
  /// over a row's samples of this, for a sample's number of tokens. The step's set of rows, and all
  /// that a checkpoint holds, are the same. Last steps of one pass that are not full stay as above.
  std::function<double(int64_t tokens)> cost = {};
};

enum class OnBadSample {
  kStop,  ///< the step that needs it throws
  kSkip,  ///< left out by all ranks when planning finds it; blank without labels when decoding does
};

struct LoaderOptions {
  int64_t max_length = 4096;
  bool packing = true;
  bool shuffle = true;
  OnBadSample on_bad_sample = OnBadSample::kStop;
  int64_t workers = 2;
  int64_t lookahead = 256;  ///< samples that packing chooses from; fixes the rows as the seed does
  uint64_t memory_bytes = uint64_t{1} << 30;  ///< decoded ahead; one step where that is larger
  int64_t steps_ahead = 16;                   ///< prepared at most
  bool one_pass = false;                      ///< end after one epoch (validation); else endless
  bool pixels = true;  ///< false: nothing is decoded, media have grids and no rows (a plan)
};

/// Sums over rows.
struct RowCounts {
  int64_t rows = 0, samples = 0;
  int64_t tokens = 0;
  int64_t labels = 0;  ///< predicted tokens: labels from each sample's second token on
  bool operator==(const RowCounts&) const = default;
};

/// This rank's part of one optimizer step.
struct StepBatch {
  std::vector<MicroBatch> micro_batches;  ///< [global_batch / (micro_batch * data_size)]
  RowCounts local;                        ///< of micro_batches as they are
  RowCounts planned;  ///< of the whole step over all ranks, without any communication. Samples that
                      ///< turned out corrupt (OnBadSample::kSkip) still count here
  double epoch = 0;   ///< reached with this step, e.g. 1.25
  double wait_s = 0;  ///< how long the caller waited
};

/// What was left out so far. Samples are counted once, however often the run meets them.
struct SkipReport {
  int64_t bad = 0;                    ///< by planning; the same on all ranks
  int64_t corrupt = 0;                ///< by decoding: this rank's, made blank
  std::vector<std::string> messages;  ///< the first 1000, "file:line: ..."
};

/// Threads: one caller at a time; skipped() from any thread. The destructor waits for the samples
/// that are being decoded. Dataset and processor must outlive it.
class Loader {
 public:
  /// Nothing is read before the first next_step() or start().
  /// @param begin  of a checkpoint, written by any number of ranks; {} for a fresh run
  /// @throws UsageError on a layout that does not divide; DataError when `begin` belongs to another
  ///   seed or to other data.
  Loader(const Dataset& dataset, const Processor& processor, const LoaderOptions& options,
         uint64_t seed, const LoaderLayout& layout, const StreamState& begin = {});
  ~Loader();
  Loader(Loader&&) noexcept;
  Loader& operator=(Loader&&) noexcept;

  /// Begins to work ahead now instead of at the first next_step().
  void start();

  /// The next step; with one_pass nothing after the last, which may hold fewer rows: then every
  /// rank still gets the same number of micro-batches of the same number of rows, filled up with
  /// blank samples that carry no label (`local` counts them, `planned` does not).
  /// @throws DataError for a bad sample with OnBadSample::kStop, and whatever else a worker met, in
  ///   the step where it belongs; every later call throws the same.
  std::optional<StepBatch> next();

  /// next() of an endless loader.
  StepBatch next_step();

  /// After the last step that was handed out. Steps that are prepared ahead do not show in it.
  const StreamState& state() const;

  /// Steps until every sample has come up `epochs` times, from the beginning of the run: the rows
  /// of these epochs over global_batch, rounded up; the last step is filled from the epoch after.
  /// Reads all records when rows depend on them (packing, or OnBadSample::kSkip). Only before
  /// start().
  int64_t steps_of_epochs(int64_t epochs);

  SkipReport skipped() const;

 private:
  class Engine;
  std::unique_ptr<Engine> engine_;
};

}  // namespace triptych
