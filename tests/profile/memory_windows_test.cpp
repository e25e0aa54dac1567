// When snapshots are written, and what they say of themselves.

#include "profile/memory_windows.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include <map>

#include "base/error.h"
#include "insight/snapshot.h"
#include "kernels/cpu_allocator.h"
#include "support/scratch.h"

namespace triptych {
namespace {

namespace fs = std::filesystem;

class Windows : public testing::Test {
 protected:
  static void SetUpTestSuite() { install_cpu_allocator(); }

  MemoryWindows observer(std::vector<std::vector<int64_t>> windows,
                         std::vector<int64_t> ranks = {0}) {
    return {process_, {.windows = std::move(windows), .ranks = std::move(ranks)}, folder_};
  }
  /// What the snapshots say, in the order of their steps.
  std::vector<Json> written() const {
    std::map<int64_t, Json> found;
    if (fs::exists(folder_ / "traces/memory"))
      for (const auto& entry : fs::directory_iterator(folder_ / "traces/memory")) {
        const auto read = insight::snapshot_json(entry.path());
        auto about = read["about"];
        about["events"] = read["events"];
        found[about["first_step"].get<int64_t>()] = about;
      }
    std::vector<Json> list;
    for (auto& [step, about] : found) list.push_back(about);
    return list;
  }

  ProcessContext process_;
  const Scratch scratch_;
  const fs::path folder_ = scratch_ / "out";  // not there yet
};

TEST_F(Windows, OpenAndCloseBetweenSteps) {
  auto windows = observer({{3, 4}, {0, 2}});
  windows.run_opens();
  at::empty({10});  // the model
  for (int64_t step = 1; step <= 4; ++step) {
    windows.step_begins(step);
    at::empty({10});
    windows.step_ends(step);
  }
  windows.run_ends(nullptr);
  const auto found = written();
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0]["first_step"], 0);
  EXPECT_EQ(found[0]["end_step"], 2);
  EXPECT_EQ(found[0]["events"], 6);  // two allocations, each with two events of its release
  EXPECT_EQ(found[1]["first_step"], 3);
  EXPECT_EQ(found[1]["end_step"], 4);
  EXPECT_EQ(found[1]["events"], 3);
  EXPECT_FALSE(found[1].contains("failure"));
}

TEST_F(Windows, TheEndOfTheRunClosesThem) {
  auto windows = observer({{2, 100}});
  windows.run_opens();
  for (int64_t step = 1; step <= 3; ++step) {
    windows.step_begins(step);
    windows.step_ends(step);
  }
  const Error error("step 4 went wrong");
  windows.run_ends(&error);
  const auto found = written();
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0]["first_step"], 2);
  EXPECT_EQ(found[0]["end_step"], 4);
  EXPECT_EQ(found[0]["failure"], "step 4 went wrong");
  EXPECT_FALSE(memory_recording());
}

TEST_F(Windows, AFailedAllocationLeavesWhatIsHeld) {
  auto windows = observer({});
  windows.run_opens();
  windows.step_begins(7);
  const auto held = at::empty({1 << 20});
  EXPECT_THROW(at::empty({int64_t{1} << 46}), Error);
  const auto found = written();
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0]["first_step"], 7);
  EXPECT_GE(found[0]["allocated_at_begin"].get<int64_t>(), 4 << 20);
  EXPECT_THAT(found[0]["failure"].get<std::string>(),
              testing::HasSubstr("262144.00 GiB asked for"));
  EXPECT_THROW(at::empty({int64_t{1} << 46}), Error);
  EXPECT_EQ(written().size(), 1u) << "once is enough";
}

TEST_F(Windows, OtherRanksRecordNothing) {
  auto windows = observer({{0, 5}}, {1, 2});
  windows.run_opens();
  EXPECT_FALSE(memory_recording());
  auto all = observer({{0, 5}}, {-1});
  all.run_opens();
  EXPECT_TRUE(memory_recording());
}

}  // namespace
}  // namespace triptych
