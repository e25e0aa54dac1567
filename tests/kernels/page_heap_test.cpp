// Blocks do not overlap, neighbours join, and what was taken is used again.

#include "kernels/page_heap.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

namespace triptych {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

TEST(PageHeap, JoinsNeighboursInAnyOrder) {
  std::vector<int> order{0, 1, 2, 3};
  do {
    PageHeap heap;
    std::vector<void*> blocks;
    for (int i = 0; i < 4; ++i) blocks.push_back(heap.take(8 * kMiB));
    const auto reserved = heap.reserved_bytes();
    EXPECT_EQ(reserved, 32 * kMiB);
    for (const int i : order) heap.give_back(blocks[static_cast<size_t>(i)], 8 * kMiB);
    void* whole = heap.take(32 * kMiB);  // fits only where all four have become one
    EXPECT_EQ(whole, *std::ranges::min_element(blocks));
    EXPECT_EQ(heap.reserved_bytes(), reserved);
  } while (std::ranges::next_permutation(order).found);
}

TEST(PageHeap, CutsTheLeastThatIsLargeEnough) {
  PageHeap heap;
  std::vector<void*> held;
  const auto gap = [&](size_t bytes) {
    void* block = heap.take(bytes);
    held.push_back(heap.take(1));  // keeps it apart from the next
    return block;
  };
  void *large = gap(4 * kMiB), *small = gap(2 * kMiB), *middle = gap(3 * kMiB);
  heap.give_back(large, 4 * kMiB);
  heap.give_back(small, 2 * kMiB);
  heap.give_back(middle, 3 * kMiB);
  EXPECT_EQ(heap.take(2 * kMiB + 1), middle);
  EXPECT_EQ(heap.take(2 * kMiB), small);
}

/// What does not fit is joined to what is free at the border, and only the rest is asked for.
TEST(PageHeap, GrowsByWhatIsMissing) {
  PageHeap heap;
  void* block = heap.take(32 * kMiB);
  heap.give_back(block, 32 * kMiB);
  void* twice = heap.take(70 * kMiB);
  ASSERT_NE(twice, nullptr);
  std::memset(twice, 1, 70 * kMiB);
  // 102 MiB where the place below was taken by another mapping.
  EXPECT_TRUE(heap.reserved_bytes() == 70 * kMiB || heap.reserved_bytes() == 102 * kMiB)
      << heap.reserved_bytes();
}

TEST(PageHeap, SaysWhenTheSystemGivesNoMore) {
  PageHeap heap;
  EXPECT_EQ(heap.take(size_t{1} << 60), nullptr);
  EXPECT_EQ(heap.take(SIZE_MAX), nullptr);
  EXPECT_EQ(heap.reserved_bytes(), 0);
  EXPECT_NE(heap.take(kMiB), nullptr);
}

TEST(PageHeap, ForgetsTheContentsOfFreePagesOnTrim) {
  PageHeap heap;
  auto* kept = static_cast<char*>(heap.take(kMiB));
  auto* freed = static_cast<char*>(heap.take(kMiB));
  std::memset(kept, 7, kMiB);
  std::memset(freed, 7, kMiB);
  heap.give_back(freed, kMiB);
  heap.trim();
  EXPECT_EQ(std::count(kept, kept + kMiB, 7), kMiB);
  ASSERT_EQ(heap.take(kMiB), freed);
  EXPECT_EQ(std::count(freed, freed + kMiB, 0), kMiB);
}

struct Taken {
  unsigned char* data;
  size_t bytes;
  unsigned char mark;
};

/// Each block is filled with its own number: another that overlapped it would show.
void take_and_give_back(PageHeap& heap, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<Taken> live;
  for (int i = 0; i < 2000; ++i) {
    if (live.size() > 20 || (!live.empty() && random() % 2 == 0)) {
      const size_t at = random() % live.size();
      const auto [data, bytes, mark] = live[at];
      ASSERT_EQ(std::count(data, data + bytes, mark), bytes);
      heap.give_back(data, bytes);
      live.erase(live.begin() + static_cast<std::ptrdiff_t>(at));
    } else {
      const size_t bytes = 1 + random() % (random() % 8 == 0 ? kMiB / 4 : kMiB / 16);
      auto* data = static_cast<unsigned char*>(heap.take(bytes));
      ASSERT_NE(data, nullptr);
      ASSERT_EQ(reinterpret_cast<uintptr_t>(data) % 4096, 0);
      live.push_back({data, bytes, static_cast<unsigned char>(random())});
      std::memset(data, live.back().mark, bytes);
    }
  }
  for (const auto& block : live) heap.give_back(block.data, block.bytes);
}

TEST(PageHeap, BlocksOfTwoThreadsDoNotOverlap) {
  PageHeap heap;
  std::thread other([&] { take_and_give_back(heap, 1); });
  take_and_give_back(heap, 2);
  other.join();
  const auto reserved = heap.reserved_bytes();
  EXPECT_NE(heap.take(static_cast<size_t>(reserved)), nullptr);  // all of it is one block again
  EXPECT_EQ(heap.reserved_bytes(), reserved);
}

}  // namespace
}  // namespace triptych
