#include "loss_plot.h"

#include <algorithm>
#include <cmath>

#include "base/format.h"

namespace quickstart {
namespace {

/// What both plots share: losses on a logarithmic scale.
struct Range {
  double last_step = 1, least = 1e30, most = 1e-30;

  void include(const std::vector<LossPoint>& points) {
    for (const auto& point : points) {
      last_step = std::max(last_step, point.step);
      least = std::min(least, std::max(point.loss, 1e-4));
      most = std::max(most, point.loss);
    }
  }
  /// 0 at the least loss, 1 at the most.
  double height(double loss) const {
    const double span = std::max(std::log(most / least), 1e-9);
    return std::clamp(std::log(std::max(loss, 1e-4) / least) / span, 0.0, 1.0);
  }
};

Range range_of(const std::vector<LossPoint>& a, const std::vector<LossPoint>& b) {
  Range range;
  range.include(a);
  range.include(b);
  return range;
}

std::string polyline(const std::vector<LossPoint>& points, const Range& range, const char* style,
                     double width, double height, double left, double top) {
  std::string text = fmt::format("<polyline fill=\"none\" {} points=\"", style);
  for (const auto& point : points) {
    text += fmt::format("{:.1f},{:.1f} ", left + width * point.step / range.last_step,
                        top + height * (1 - range.height(point.loss)));
  }
  return text + "\"/>\n";
}

}  // namespace

std::string plot_text(const std::vector<LossPoint>& training,
                      const std::vector<LossPoint>& validation) {
  constexpr int kColumns = 72, kRows = 12;
  const auto range = range_of(training, validation);
  std::vector<std::string> cells(static_cast<size_t>(kRows * kColumns), " ");
  const auto mark = [&](const std::vector<LossPoint>& points, const char* sign) {
    for (const auto& point : points) {
      const int column =
          std::min(static_cast<int>(kColumns * point.step / range.last_step), kColumns - 1);
      const int row = std::min(static_cast<int>(kRows * (1 - range.height(point.loss))), kRows - 1);
      cells[static_cast<size_t>(row * kColumns + column)] = sign;
    }
  };
  mark(training, "·");
  mark(validation, "●");
  std::string text;
  for (int row = 0; row < kRows; ++row) {
    const double at = 1 - row / static_cast<double>(kRows - 1);
    const bool labelled = row % 3 == 0 || row == kRows - 1;
    text += labelled
                ? fmt::format("{:>8.3g} ┤", range.least * std::pow(range.most / range.least, at))
                : std::string(9, ' ') + "│";
    for (int column = 0; column < kColumns; ++column)
      text += cells[static_cast<size_t>(row * kColumns + column)];
    text += "\n";
  }
  text += std::string(9, ' ') + "└";
  for (int column = 0; column < kColumns; ++column) text += "─";
  return text +
         fmt::format("\n{:>10}1{:>{}.0f}\n{:>10}loss of each step (·), of held-out questions (●)\n",
                     "", range.last_step, kColumns - 1, "");
}

std::string plot_svg(const std::vector<LossPoint>& training,
                     const std::vector<LossPoint>& validation) {
  constexpr double kLeft = 60, kTop = 20, kWidth = 620, kHeight = 300;
  const auto range = range_of(training, validation);
  std::string text =
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 700 370\" "
      "font-family=\"sans-serif\" "
      "font-size=\"12\">\n<rect width=\"700\" height=\"370\" fill=\"white\"/>\n";
  for (int i = 0; i <= 4; ++i) {
    const double at = i / 4.0, y = kTop + kHeight * (1 - at);
    text += fmt::format(
        "<line x1=\"{0}\" x2=\"{1}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\" stroke=\"#ddd\"/>\n"
        "<text x=\"{3}\" y=\"{4:.1f}\" text-anchor=\"end\">{5:.3g}</text>\n",
        kLeft, kLeft + kWidth, y, kLeft - 6, y + 4,
        range.least * std::pow(range.most / range.least, at));
    text += fmt::format("<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{:.0f}</text>\n",
                        kLeft + kWidth * at, kTop + kHeight + 18, range.last_step * at);
  }
  text += polyline(training, range, "stroke=\"#9db8d9\" stroke-width=\"1\"", kWidth, kHeight, kLeft,
                   kTop);
  text += polyline(validation, range, "stroke=\"#c8472b\" stroke-width=\"2\"", kWidth, kHeight,
                   kLeft, kTop);
  return text + fmt::format(
                    "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">loss by step: training "
                    "(blue), held-out questions (red)</text>\n</svg>\n",
                    kLeft + kWidth / 2, kTop + kHeight + 38);
}

}  // namespace quickstart
