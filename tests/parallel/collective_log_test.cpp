#include "parallel/collective_log.h"

#include <gmock/gmock.h>

#include <algorithm>

namespace triptych {
namespace {

TEST(CollectiveLog, KeepsTheLastAndWhateverIsOpen) {
  CollectiveLog log;
  EXPECT_FALSE(log.oldest_open().has_value());
  EXPECT_FALSE(log.last_ended().has_value());
  const auto stuck = log.begin("stuck");
  for (int i = 0; i < 100; ++i) log.end(log.begin("quick " + std::to_string(i)));
  ASSERT_TRUE(log.oldest_open().has_value());
  EXPECT_EQ(log.oldest_open()->text, "stuck");
  EXPECT_EQ(log.last_ended()->text, "quick 99");
  log.end(stuck);
  EXPECT_FALSE(log.oldest_open().has_value());
  log.end(log.begin("after"));
  const auto recent = log.recent(2);
  EXPECT_THAT(recent, testing::HasSubstr("after ("));
  EXPECT_THAT(recent, testing::Not(testing::HasSubstr("quick 98")));
  const auto all = log.recent();
  EXPECT_EQ(std::count(all.begin(), all.end(), '\n'), 32);
}

}  // namespace
}  // namespace triptych
