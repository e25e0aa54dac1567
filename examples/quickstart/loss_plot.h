#pragma once

#include <string>
#include <vector>

namespace quickstart {

struct LossPoint {
  double step = 0, loss = 0;
};

/// The loss of each step and of each validation as lines of block characters, for a terminal.
std::string plot_text(const std::vector<LossPoint>& training,
                      const std::vector<LossPoint>& validation);

/// The same as a picture.
std::string plot_svg(const std::vector<LossPoint>& training,
                     const std::vector<LossPoint>& validation);

}  // namespace quickstart
