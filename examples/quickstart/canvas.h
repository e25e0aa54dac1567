#pragma once

#include <vector>

#include "data/media/image.h"

namespace quickstart {

/// Red, green and blue, 0 to 255; fractions are kept until the picture is written.
struct Colour {
  double red = 0, green = 0, blue = 0;
};

enum class Shape { kCircle, kSquare, kTriangle, kStar };

/// Where a shape lies: centre and radius of the circle around it in pixels, y downwards, turned
/// clockwise by `angle` radians.
struct Placement {
  double x = 0, y = 0, radius = 0, angle = 0;
};

/// A picture to draw on, with edges smoothed over one pixel.
class Canvas {
 public:
  /// The background runs evenly from `top` to `bottom`.
  Canvas(int width, int height, Colour top, Colour bottom);

  void draw(Shape shape, const Placement& placement, Colour colour);

  triptych::RgbImage image() const;

 private:
  int width_, height_;
  std::vector<Colour> pixels_;
};

}  // namespace quickstart
