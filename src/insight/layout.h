#pragma once

#include "base/json.h"
#include "insight/comm_calls.h"
#include "insight/run.h"

namespace triptych::insight {

/// {"order":"tp-cp-dp-pp","sizes":{"tensor","context","data","pipeline"},"cells":[{"rank","tensor","context",
///  "data","pipeline","profiled"}],"groups":[{"tag","name","ranks"}],"source":"header|groups|guess"}
Json layout_json(const Run& run, const CommCalls& calls);

}  // namespace triptych::insight
