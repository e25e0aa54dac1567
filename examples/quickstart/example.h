#pragma once

#include <string>
#include <vector>

#include "data/media/image.h"

namespace quickstart {

struct Question {
  std::string text, answer;
};

/// A picture and questions about it, none of which gives another's answer away.
struct Example {
  triptych::RgbImage image;
  std::vector<Question> questions;
};

}  // namespace quickstart
