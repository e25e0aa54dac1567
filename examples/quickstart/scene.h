#pragma once

#include "example.h"
#include "random.h"

namespace quickstart {

/// One shape on a pale ground: its colour, its name and where it is.
Example one_shape(Random& random);

/// Two shapes of different name and colour: one told from the other.
Example two_shapes(Random& random);

/// One to five shapes of one kind: how many.
Example several_shapes(Random& random);

}  // namespace quickstart
