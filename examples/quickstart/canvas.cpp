#include "canvas.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <span>

namespace quickstart {
namespace {

struct Point {
  double x = 0, y = 0;
};

/// Corners on circles around the origin, the first one straight up; `radii` repeat in turn.
std::vector<Point> corners_on_circles(int count, std::span<const double> radii,
                                      double first_angle) {
  std::vector<Point> corners;
  for (int i = 0; i < count; ++i) {
    const double angle = first_angle + 2 * std::numbers::pi * i / count;
    const double radius = radii[static_cast<size_t>(i) % radii.size()];
    corners.push_back({radius * std::sin(angle), -radius * std::cos(angle)});
  }
  return corners;
}

std::vector<Point> corners_of(Shape shape, double radius) {
  const double one[] = {radius}, star[] = {radius, 0.42 * radius};
  switch (shape) {
    case Shape::kSquare:
      return corners_on_circles(4, one, std::numbers::pi / 4);
    case Shape::kTriangle:
      return corners_on_circles(3, one, 0);
    case Shape::kStar:
      return corners_on_circles(10, star, 0);
    case Shape::kCircle:
      break;
  }
  return {};
}

/// Signed distance from a polygon's edge, negative inside.
double distance_to_polygon(Point p, std::span<const Point> corners) {
  double nearest = std::numeric_limits<double>::max();
  bool inside = false;
  for (size_t i = 0, j = corners.size() - 1; i < corners.size(); j = i++) {
    const Point a = corners[i], b = corners[j];
    const double edge_x = b.x - a.x, edge_y = b.y - a.y, x = p.x - a.x, y = p.y - a.y;
    const double along =
        std::clamp((x * edge_x + y * edge_y) / (edge_x * edge_x + edge_y * edge_y), 0.0, 1.0);
    nearest = std::min(nearest, std::hypot(x - along * edge_x, y - along * edge_y));
    const bool crosses = (a.y > p.y) != (b.y > p.y);
    if (crosses && p.x < edge_x * y / edge_y + a.x) inside = !inside;
  }
  return inside ? -nearest : nearest;
}

Colour mix(Colour a, Colour b, double share_of_b) {
  return {std::lerp(a.red, b.red, share_of_b), std::lerp(a.green, b.green, share_of_b),
          std::lerp(a.blue, b.blue, share_of_b)};
}

}  // namespace

Canvas::Canvas(int width, int height, Colour top, Colour bottom) : width_(width), height_(height) {
  pixels_.reserve(static_cast<size_t>(width) * static_cast<size_t>(height));
  for (int y = 0; y < height; ++y) {
    pixels_.insert(pixels_.end(), static_cast<size_t>(width), mix(top, bottom, (y + 0.5) / height));
  }
}

void Canvas::draw(Shape shape, const Placement& placement, Colour colour) {
  const auto corners = corners_of(shape, placement.radius);
  const double cosine = std::cos(placement.angle), sine = std::sin(placement.angle);
  const auto first = [](double edge) { return std::max(static_cast<int>(edge), 0); };
  const auto end = [](double edge, int limit) {
    return std::min(static_cast<int>(edge) + 1, limit);
  };
  const double reach = placement.radius + 1;
  for (int row = first(placement.y - reach); row < end(placement.y + reach, height_); ++row) {
    for (int column = first(placement.x - reach); column < end(placement.x + reach, width_);
         ++column) {
      const double x = column + 0.5 - placement.x, y = row + 0.5 - placement.y;
      const Point turned_back{cosine * x + sine * y, cosine * y - sine * x};
      const double distance = shape == Shape::kCircle ? std::hypot(x, y) - placement.radius
                                                      : distance_to_polygon(turned_back, corners);
      auto& pixel = pixels_[static_cast<size_t>(row) * static_cast<size_t>(width_) +
                            static_cast<size_t>(column)];
      pixel = mix(pixel, colour, std::clamp(0.5 - distance, 0.0, 1.0));
    }
  }
}

triptych::RgbImage Canvas::image() const {
  triptych::RgbImage image{.size = {width_, height_}};
  image.pixels.reserve(pixels_.size() * 3);
  for (const auto& pixel : pixels_) {
    for (const double level : {pixel.red, pixel.green, pixel.blue}) {
      image.pixels.push_back(static_cast<uint8_t>(std::lround(std::clamp(level, 0.0, 255.0))));
    }
  }
  return image;
}

}  // namespace quickstart
