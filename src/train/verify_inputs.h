#pragma once

#include <filesystem>

#include "base/json.h"
#include "train/verify.h"
#include "train/verify_batches.h"

namespace triptych {

/// What becomes a model's input: sizes of resized pictures, pixels, tokens and labels, from the
/// folder's own pictures, texts and records, through the code that reads training data.
///
/// Quantities that folders of the first format lack are rows that say so; of `format` 2 on they
/// are required.
/// @throws Error when a file cannot be read; DataError when a key is missing or malformed.
void verify_inputs(const std::filesystem::path& folder, const Json& manifest,
                   const ReferenceBatches& reference, VerifyTable& table);

}  // namespace triptych
