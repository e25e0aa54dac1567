#pragma once

// The parts of make_flow: what is known of pictures, and of tokens.
//
// P patches   F values of a patch   T tokens of all samples   K head dim   C cells

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "models/qwen2_5_vl/model.h"
#include "models/qwen2_5_vl/vision_share.h"
#include "parallel/layer.h"

namespace triptych::qwen2_5_vl {

at::Tensor host_tensor(const std::vector<int64_t>& values);
/// Index lists of the device. In a plan they stay on the host, where they have values: how many
/// words are here or there decides about sizes.
at::Tensor index_tensor(const at::Tensor& host, at::Device device);

/// inv_freq[i] = theta^(-2i / dim) in fp32, in the reference's order of operations.
at::Tensor inverse_frequencies(double theta, int64_t dim);
/// [positions, frequencies]
at::Tensor angles(const std::vector<int64_t>& positions, const at::Tensor& inv_freq);

/// How many tokens (or cells) a sequence needs behind `count`, so that tensor ranks share it
/// evenly.
int64_t padding(int64_t count, const ModelGroups& groups);

/// Where the cells of each picture or video of a micro-batch come from.
class Media {
 public:
  struct Medium {
    MediaGrid grid;
    std::span<const float> rows;  ///< empty: another rank has them
    uint64_t sample = 0;
    int64_t first_patch = 0, first_cell = 0;  ///< in the sample; in the micro-batch
  };

  explicit Media(const VisionOptions& options);  ///< none yet
  Media(std::span<const SampleView> samples, const VisionOptions& options);
  /// Behind those that are there; finds its first cell.
  void add(Medium medium);

  int64_t cells() const { return cells_; }
  const std::vector<Medium>& list() const { return list_; }

  /// Pixels of these cells [P, F], in their order; zeros behind them, up to P patches.
  at::Tensor pixels(const std::vector<int64_t>& cells, int64_t P) const;

  /// Keys of adapter dropout of these cells' patches: of the sample, and of the patch's place among
  /// the sample's; zeros behind them, up to P patches.
  at::Tensor dropout_keys(const std::vector<int64_t>& cells, int64_t P,
                          const FlowSettings::DropoutKey& key) const;

 private:
  const Medium& of_cell(int64_t cell) const;

  int64_t M_, F_, cells_ = 0;
  std::vector<Medium> list_;
};

/// The fields of the vision tower.
/// @param pixels_PF  of the share's cells, where another rank has read some; undefined: the
/// media's.
void add_vision(Flow& flow, const VisionOptions& options, const Media& media, VisionShare share,
                const FlowSettings& settings, const at::Tensor& pixels_PF = {});

/// How features reach the ranks whose tokens they are. Returns the row of each own placeholder's.
/// @param needed  cells that stand among each rank's tokens
std::vector<int64_t> add_route(Flow& flow, const VisionShare& vision,
                               const std::vector<std::vector<int64_t>>& needed, int64_t cells,
                               int64_t rank, const FlowSettings& settings);

/// balance_vision = "data": the fields of the vision tower, and the route of its features, with
/// whole pictures shared out over the data and context ranks. All of these take part in every
/// exchange, whatever they have.
/// @param needed  cells that stand among each context rank's tokens, in their order
/// @return        as add_route
std::vector<int64_t> add_shared_pictures(Flow& flow, const Options& options, const Media& own,
                                         const std::vector<std::vector<int64_t>>& needed,
                                         const FlowSettings& settings);

/// What is known of each token, of the whole packed row or, after `keep`, of some of it.
struct TokenLists {
  std::vector<int64_t> ids;  ///< a word's, or for the placeholder of cell c: -1 - c
  TextPositions positions;
  std::vector<int64_t> dropout_keys;  ///< only with dropout
  std::vector<int64_t> bounds{0};     ///< of the samples of the whole row

  static bool is_placeholder(int64_t id) { return id < 0; }
  static int64_t cell(int64_t id) { return -1 - id; }

  void append(const SampleView& sample, std::span<const MediaGrid> grids, int64_t& cells,
              const Options& options, const FlowSettings& settings);
  void keep(const std::vector<int64_t>& rows);
  /// Adds tokens at the end from which nothing is learned.
  void pad(int64_t count);
};

/// Ids of words, and the row of each token in [words; features].
/// @param places  row of the feature of each placeholder, in order; empty: that of its cell.
void add_words(Flow& flow, const TokenLists& tokens, const std::vector<int64_t>& places,
               const at::Device& device);

/// @param local_row  of every token of the packed row on this rank, -1 elsewhere; empty: all here.
void add_labels(Flow& flow, std::span<const SampleView> samples,
                const std::vector<int64_t>& local_row, const at::Device& device);

}  // namespace triptych::qwen2_5_vl
