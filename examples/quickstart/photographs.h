#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "example.h"
#include "random.h"

namespace quickstart {

/// The photographs of the folder, each shown in parts: another crop, side and brightness each time.
class Photographs {
 public:
  explicit Photographs(const std::filesystem::path& folder);

  Example random_view(Random& random) const;

 private:
  struct Photograph {
    triptych::RgbImage image;
    std::string shows;
  };
  std::vector<Photograph> photographs_;
};

}  // namespace quickstart
