#include "data/packer.h"

#include <cassert>

#include "base/error.h"

namespace triptych {

Packer::Packer(int64_t max_length, int64_t lookahead)
    : max_length_(max_length), lookahead_(lookahead) {
  require(max_length > 0 && lookahead > 0, "packer: max_length ", max_length, " and lookahead ",
          lookahead, " must be positive");
}

void Packer::add(PackItem item) {
  require(item.length > 0 && item.length <= max_length_, "packer: a sample of ", item.length,
          " tokens; allowed are 1 to ", max_length_);
  waiting_.push_back(item);
}

std::vector<PackItem> Packer::next_row() {
  assert(!waiting_.empty());
  std::vector<PackItem> row{waiting_.front()};
  waiting_.pop_front();
  if (lookahead_ == 1) return row;
  for (auto left = max_length_ - row.front().length;;) {
    auto best = waiting_.end();
    for (auto it = waiting_.begin(); it != waiting_.end(); ++it) {
      if (it->length <= left && (best == waiting_.end() || it->length > best->length)) best = it;
    }
    if (best == waiting_.end()) return row;
    left -= best->length;
    row.push_back(*best);
    waiting_.erase(best);
  }
}

}  // namespace triptych
