#include "base/glob.h"

#include <gtest/gtest.h>

namespace triptych {
namespace {

struct Case {
  const char* pattern;
  const char* text;
  bool matches;
};
class Glob : public testing::TestWithParam<Case> {};

TEST_P(Glob, Matches) {
  EXPECT_EQ(glob_match(GetParam().pattern, GetParam().text), GetParam().matches);
}

INSTANTIATE_TEST_SUITE_P(Cases, Glob,
                         testing::Values(Case{"visual.*", "visual.blocks.0.norm1.weight", true},
                                         Case{"visual.*", "model.norm.weight", false},
                                         Case{"*.bias", "a.b.bias", true},
                                         Case{"*.bias", "a.bias.weight", false},
                                         Case{"model.layers.?.*", "model.layers.3.mlp", true},
                                         Case{"model.layers.?.*", "model.layers.13.mlp", false},
                                         Case{"*.layers.[13].*", "model.layers.3.mlp", true},
                                         Case{"*.layers.[13].*", "model.layers.13.mlp", false},
                                         Case{"*.layers.[2-4].*", "model.layers.3.mlp", true},
                                         Case{"*.layers.[2-4].*", "model.layers.5.mlp", false},
                                         Case{"*.layers.[!2-4].*", "model.layers.5.mlp", true},
                                         Case{"*.layers.[!2-4].*", "model.layers.3.mlp", false},
                                         Case{"*[0-9][0-9].*", "a.7.12.b", true},
                                         Case{"a[b", "a[b", true}, Case{"a[-]", "a-", true},
                                         Case{"*a*b*", "xaxxb", true}, Case{"", "", true},
                                         Case{"", "x", false}));

}  // namespace
}  // namespace triptych
