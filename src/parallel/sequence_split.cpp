#include "parallel/sequence_split.h"

#include "base/error.h"

namespace triptych {

SequenceSplit::SequenceSplit(std::span<const int64_t> bounds, int64_t ring, int64_t ulysses,
                             bool zigzag)
    : bounds_(bounds.begin(), bounds.end()),
      ring_(ring),
      ulysses_(ulysses),
      zigzag_(zigzag && ring > 1) {
  require(ring >= 1 && ulysses >= 1 && !bounds_.empty() && bounds_.front() == 0,
          "sequence split: bounds must begin with 0 and ring ", ring, " and Ulysses ", ulysses,
          " be at least 1");
  for (int64_t part = 0; part < ring_; ++part) {
    int64_t tokens = 0;
    for (int64_t sample = 0; sample < samples(); ++sample) {
      const auto [early, late] = share(part, sample);
      tokens += early + late;
    }
    part_tokens_.push_back(tokens);
  }
}

int64_t SequenceSplit::chunk_begin(int64_t sample, int64_t chunk) const {
  const int64_t begin = bounds_[sample], length = bounds_[sample + 1] - begin;
  return begin + chunk * length / (zigzag_ ? 2 * ring_ : ring_);
}

SequenceSplit::Share SequenceSplit::share(int64_t ring_rank, int64_t sample) const {
  const auto size = [&](int64_t chunk) {
    return chunk_begin(sample, chunk + 1) - chunk_begin(sample, chunk);
  };
  return {size(ring_rank), zigzag_ ? size(2 * ring_ - 1 - ring_rank) : 0};
}

int64_t SequenceSplit::tokens(int64_t ring_rank) const { return part_tokens_[ring_rank]; }

int64_t SequenceSplit::piece_begin(int64_t ring_rank, int64_t ulysses_rank) const {
  return ulysses_rank * part_tokens_[ring_rank] / ulysses_;
}

int64_t SequenceSplit::tokens(int64_t ring_rank, int64_t ulysses_rank) const {
  return piece_begin(ring_rank, ulysses_rank + 1) - piece_begin(ring_rank, ulysses_rank);
}

std::vector<int64_t> SequenceSplit::piece_sizes(int64_t ring_rank) const {
  std::vector<int64_t> sizes;
  for (int64_t u = 0; u < ulysses_; ++u) sizes.push_back(tokens(ring_rank, u));
  return sizes;
}

std::vector<int64_t> SequenceSplit::rows(int64_t ring_rank, int64_t ulysses_rank) const {
  const int64_t begin = piece_begin(ring_rank, ulysses_rank),
                end = piece_begin(ring_rank, ulysses_rank + 1);
  std::vector<int64_t> rows;
  int64_t place = 0;  // in the ring part
  const auto append = [&](int64_t sample, int64_t chunk) {
    for (int64_t row = chunk_begin(sample, chunk); row < chunk_begin(sample, chunk + 1); ++row) {
      if (place >= begin && place < end) rows.push_back(row);
      ++place;
    }
  };
  for (int64_t sample = 0; sample < samples(); ++sample) {
    append(sample, ring_rank);
    if (zigzag_) append(sample, 2 * ring_ - 1 - ring_rank);
  }
  return rows;
}

}  // namespace triptych
