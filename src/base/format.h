#pragma once

// The one place that includes fmt. It is the header-only copy inside the torch wheel, because the
// wheel's folder comes before the system's in every torch target and two versions must not meet.
#include <fmt/format.h>
