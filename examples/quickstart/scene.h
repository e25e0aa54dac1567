#pragma once

#include <string>
#include <vector>

#include "canvas.h"
#include "random.h"

namespace quickstart {

struct Question {
  std::string text, answer;
};

/// One to three shapes, all of different shape and colour, none touching another, on a pale ground.
struct Scene {
  struct Object {
    Shape shape{};
    int colour = 0;  // index into the named colours
    Placement placement;
  };

  int width = 0, height = 0;
  Colour top, bottom;
  std::vector<Object> objects;  // from left to right
  std::vector<Colour> paints;   // of the objects: their named colour, a little varied
};

Scene random_scene(Random& random);
Canvas draw(const Scene& scene);

/// Every question that the scene answers without doubt.
std::vector<Question> questions_about(const Scene& scene);

}  // namespace quickstart
