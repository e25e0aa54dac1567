#include "scene.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <string_view>

namespace quickstart {
namespace {

using Object = Scene::Object;

constexpr std::array<std::string_view, 4> kShapeNames = {"circle", "square", "triangle", "star"};
constexpr std::array<std::string_view, 4> kNumberNames = {"none", "one", "two", "three"};

struct NamedColour {
  std::string_view name;
  Colour colour;
};
constexpr std::array<NamedColour, 6> kColours = {{{"red", {214, 40, 40}},
                                                  {"green", {46, 150, 60}},
                                                  {"blue", {38, 84, 200}},
                                                  {"yellow", {240, 200, 30}},
                                                  {"purple", {140, 50, 170}},
                                                  {"black", {28, 28, 30}}}};

std::string_view name_of(Shape shape) { return kShapeNames[static_cast<size_t>(shape)]; }
std::string_view name_of_colour(const Object& object) {
  return kColours[static_cast<size_t>(object.colour)].name;
}

Colour varied(Colour colour, double by, Random& random) {
  return {colour.red + random.between(-by, by), colour.green + random.between(-by, by),
          colour.blue + random.between(-by, by)};
}

/// Left and right, above and below are beyond doubt, and the shapes do not touch.
bool well_apart(const Placement& a, const Placement& b) {
  constexpr double kClear = 12;
  const double dx = std::abs(a.x - b.x), dy = std::abs(a.y - b.y);
  return dx > kClear && dy > kClear && std::hypot(dx, dy) > a.radius + b.radius + 3;
}

/// Places the shapes one after another; starts again when there is no room for the next one.
std::vector<Placement> random_placements(size_t count, int width, int height, Random& random) {
  std::vector<Placement> placed;
  for (int attempt = 0; placed.size() < count; ++attempt) {
    if (attempt == 100) placed.clear(), attempt = 0;
    const double radius = random.between(14, 21);
    const Placement next{random.between(radius + 2, width - radius - 2),
                         random.between(radius + 2, height - radius - 2), radius,
                         random.between(-0.2, 0.2)};
    if (std::ranges::all_of(placed, [&](const auto& other) { return well_apart(next, other); })) {
      placed.push_back(next);
    }
  }
  return placed;
}

template <size_t N>
std::array<int, N> random_order(Random& random) {
  std::array<int, N> order;
  std::iota(order.begin(), order.end(), 0);
  random.shuffle(std::span<int>(order));
  return order;
}

std::string described(const Object& object) {
  return "a " + std::string(name_of_colour(object)) + " " + std::string(name_of(object.shape));
}

std::string described(const std::vector<Object>& objects) {
  std::string all;
  for (const auto& object : objects) all += (all.empty() ? "" : ", ") + described(object);
  return all;
}

}  // namespace

Scene random_scene(Random& random) {
  constexpr std::array<std::array<int, 2>, 3> kSizes = {{{112, 112}, {140, 112}, {112, 140}}};
  const auto size = random.pick(kSizes);
  Scene scene{.width = size[0], .height = size[1]};
  scene.top = varied({236, 234, 226}, 14, random);
  scene.bottom = varied({226, 230, 236}, 14, random);

  const auto shapes = random_order<kShapeNames.size()>(random);
  const auto colours = random_order<kColours.size()>(random);
  const auto count = static_cast<size_t>(1 + random.below(3));
  const auto placements = random_placements(count, scene.width, scene.height, random);
  for (size_t i = 0; i < count; ++i) {
    scene.objects.push_back({static_cast<Shape>(shapes[i]), colours[i], placements[i]});
  }
  std::ranges::sort(scene.objects, {}, [](const Object& object) { return object.placement.x; });
  for (const auto& object : scene.objects) {
    scene.paints.push_back(varied(kColours[static_cast<size_t>(object.colour)].colour, 16, random));
  }
  return scene;
}

Canvas draw(const Scene& scene) {
  Canvas canvas(scene.width, scene.height, scene.top, scene.bottom);
  for (size_t i = 0; i < scene.objects.size(); ++i) {
    canvas.draw(scene.objects[i].shape, scene.objects[i].placement, scene.paints[i]);
  }
  return canvas;
}

std::vector<Question> questions_about(const Scene& scene) {
  const auto& objects = scene.objects;
  std::vector<Question> questions = {
      {"How many shapes are there?", std::string(kNumberNames[objects.size()])},
      {"Describe the picture.", described(objects)}};
  for (const auto& object : objects) {
    const std::string shape(name_of(object.shape)), colour(name_of_colour(object));
    questions.push_back({"What colour is the " + shape + "?", colour});
    questions.push_back({"Which shape is " + colour + "?", shape});
  }
  if (objects.size() > 1) {
    const auto height = [](const Object& object) { return object.placement.y; };
    const auto top = std::ranges::min(objects, {}, height),
               bottom = std::ranges::max(objects, {}, height);
    const std::pair<std::string_view, Object> places[] = {{"on the left", objects.front()},
                                                          {"on the right", objects.back()},
                                                          {"at the top", top},
                                                          {"at the bottom", bottom}};
    for (const auto& [place, object] : places) {
      questions.push_back(
          {"Which shape is " + std::string(place) + "?", std::string(name_of(object.shape))});
    }
  }
  return questions;
}

}  // namespace quickstart
