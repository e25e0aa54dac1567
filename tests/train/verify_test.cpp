// verify_test FOLDER...: every quantity of the folders must be within its tolerance, and a
// deliberate mistake in the expected values must be found.

#include "train/verify.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace triptych {
namespace {

std::vector<std::string> folders;

TEST(Verify, EveryQuantityEqualsTheReference) {
  ASSERT_FALSE(folders.empty());
  for (const auto& folder : folders) {
    const auto table = verify_folder(folder);
    EXPECT_TRUE(table.ok()) << folder << "\n" << table.text();
    EXPECT_GE(table.rows().size(), 60U) << "quantities are missing";
  }
}

TEST(VerifyTable, SeesWhatIsWrong) {
  VerifyTable table;
  const auto x = at::arange(4, at::kFloat);
  table.compare("equal", x, x, Measure::kAbsolute, 0);
  EXPECT_TRUE(table.ok());
  table.compare("off by one", x, x + 1, Measure::kAbsolute, 0.5);
  table.compare("another shape", x, at::zeros({5}), Measure::kAbsolute, 1e9);
  table.compare("not a number", x / 0 * 0, x, Measure::kRelativeL2, 1e9);
  table.compare("one differs", at::tensor({1, 2}), at::tensor({1, 3}), Measure::kExact, 0);
  table.compare_exactly("ids", Json({1, 2}), Json({1, 3}));
  for (size_t i = 1; i < table.rows().size(); ++i)
    EXPECT_FALSE(table.rows()[i].ok()) << table.rows()[i].quantity;
}

TEST(Verify, SaysWhatIsMissing) {
  EXPECT_THAT([] { verify_folder("/nonexistent"); },
              testing::ThrowsMessage<DataError>(testing::HasSubstr("manifest.json is missing")));
}

}  // namespace
}  // namespace triptych

int main(int argc, char** argv) {
  testing::InitGoogleMock(&argc, argv);
  triptych::folders.assign(argv + 1, argv + argc);
  return RUN_ALL_TESTS();
}
