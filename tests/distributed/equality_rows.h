#pragma once

// The rows of the table: layouts by their words, which techniques each is made of, and whether
// every pair of techniques occurs.

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "equality.h"

namespace triptych {

/// A row from its words, joined by ", ": "tensor 2, sequence, ring 2, recompute". Each word stands
/// for options of the run file and, where it cuts something over ranks, multiplies the processes.
/// @param more  further assignments, blank between them, that no word stands for; name them by
///   words in brackets: "pipeline 2 (uneven cut)".
/// @throws std::invalid_argument for a word that is not known.
EqualityRow layout(const std::string& words, TinyModel model = TinyModel::kQwen,
                   const std::string& more = {});

/// The techniques that a row made by `layout` is of.
std::set<std::string> techniques(const EqualityRow& row);

/// What `ctest` runs: every pair of techniques occurs, for either model.
const std::vector<EqualityRow>& covering_rows();
/// What `ctest -C full -L full` runs besides: each technique alone on 2 and on 4 ranks, and more.
const std::vector<EqualityRow>& further_rows();

using TechniquePair = std::pair<std::string, std::string>;

/// Pairs of techniques of all rows of a model that no covering row has, though a layout can. A row
/// with adapters or a frozen part trains less, so it counts for pairs with these alone.
std::vector<TechniquePair> missing_pairs(TinyModel model);
/// How many pairs there are to cover.
size_t count_pairs(TinyModel model);

}  // namespace triptych
