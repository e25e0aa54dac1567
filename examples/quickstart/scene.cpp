#include "scene.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <string_view>

#include "canvas.h"

namespace quickstart {
namespace {

constexpr int kCell = 28;  // pixels; one cell of a picture becomes one token of the model

constexpr std::array<std::string_view, 4> kShapeNames = {"circle", "square", "triangle", "star"};
constexpr std::array<std::string_view, 6> kNumberNames = {"none",  "one",  "two",
                                                          "three", "four", "five"};

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

/// A shape, its colour and its cell.
struct Object {
  int shape = 0, colour = 0, column = 0, row = 0;

  std::string shape_name() const { return std::string(kShapeNames[static_cast<size_t>(shape)]); }
  std::string colour_name() const {
    return std::string(kColours[static_cast<size_t>(colour)].name);
  }
};

struct Grid {
  int columns = 0, rows = 0;
};

Grid random_grid(Random& random) {
  return random.pick(std::array{Grid{4, 4}, Grid{5, 4}, Grid{4, 5}});
}

std::vector<int> random_order(int count, Random& random) {
  std::vector<int> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  random.shuffle(std::span(order));
  return order;
}

Colour varied(Colour colour, double by, Random& random) {
  return {colour.red + random.between(-by, by), colour.green + random.between(-by, by),
          colour.blue + random.between(-by, by)};
}

triptych::RgbImage draw(Grid grid, const std::vector<Object>& objects, Random& random) {
  Canvas canvas(grid.columns * kCell, grid.rows * kCell, varied({236, 234, 226}, 14, random),
                varied({226, 230, 236}, 14, random));
  for (const auto& object : objects) {
    const Placement placement{.x = (object.column + 0.5) * kCell + random.between(-2, 2),
                              .y = (object.row + 0.5) * kCell + random.between(-2, 2),
                              .radius = random.between(10.5, 13.5),
                              .angle = random.between(-0.2, 0.2)};
    canvas.draw(static_cast<Shape>(object.shape), placement,
                varied(kColours[static_cast<size_t>(object.colour)].colour, 16, random));
  }
  return canvas.image();
}

}  // namespace

Example one_shape(Random& random) {
  const Grid grid = random_grid(random);
  const Object object{.shape = random.below(kShapeNames.size()),
                      .colour = random.below(kColours.size()),
                      .column = random.below(grid.columns),
                      .row = random.below(grid.rows)};
  return {draw(grid, {object}, random),
          {{"What colour is the shape?", object.colour_name()},
           {"Which shape is it?", object.shape_name()}}};
}

Example two_shapes(Random& random) {
  const Grid grid = random_grid(random);
  const auto shapes = random_order(kShapeNames.size(), random);
  const auto colours = random_order(kColours.size(), random);
  const auto columns = random_order(grid.columns, random), rows = random_order(grid.rows, random);
  std::vector<Object> objects;
  for (const size_t i : {0U, 1U}) {
    objects.push_back({shapes[i], colours[i], columns[i], rows[i]});
  }
  Example example{draw(grid, objects, random), {}};
  for (const auto& object : objects) {
    example.questions.push_back(
        {"Which shape is " + object.colour_name() + "?", object.shape_name()});
  }
  return example;
}

Example several_shapes(Random& random) {
  const Grid grid = random_grid(random);
  const auto cells = random_order(grid.columns * grid.rows, random);
  const int count = 1 + random.below(5), shape = random.below(kShapeNames.size()),
            colour = random.below(kColours.size());
  std::vector<Object> objects;
  for (int i = 0; i < count; ++i) {
    const int cell = cells[static_cast<size_t>(i)];
    objects.push_back({shape, colour, cell % grid.columns, cell / grid.columns});
  }
  return {draw(grid, objects, random),
          {{"How many shapes are there?", std::string(kNumberNames[static_cast<size_t>(count)])}}};
}

}  // namespace quickstart
