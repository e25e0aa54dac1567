#pragma once

// Compares this build with expected results of the reference libraries: a folder made by a script
// of tests/parity holds a tiny checkpoint, inputs and expected values; every quantity in it is
// computed here and compared.

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <string>
#include <vector>

#include "base/json.h"

namespace triptych {

/// How an error is measured.
enum class Measure {
  kExact,       ///< number of values that differ
  kAbsolute,    ///< largest absolute difference
  kRelative,    ///< largest relative difference
  kOfLargest,   ///< largest absolute difference / largest expected absolute value
  kRelativeL2,  ///< norm of the difference / norm of the expected values
};

struct VerifyRow {
  std::string quantity;
  Measure measure = Measure::kExact;
  double error = 0;
  double tolerance = 0;
  std::string note;     ///< where the largest error is, or why nothing could be compared
  bool absent = false;  ///< the folder has no expected value of it; nothing was compared
  bool ok() const { return error <= tolerance; }  // NaN is not ok
};

/// The table of results, filled row by row.
class VerifyTable {
 public:
  void add(VerifyRow row) { rows_.push_back(std::move(row)); }

  /// Compares whole tensors; another shape is an infinite error with both shapes in the note.
  void compare(const std::string& quantity, const at::Tensor& got, const at::Tensor& expected,
               Measure measure, double tolerance);
  void compare_number(const std::string& quantity, double got, double expected, Measure measure,
                      double tolerance);
  /// Integers and strings as JSON: the error is 0 or 1.
  void compare_exactly(const std::string& quantity, const Json& got, const Json& expected);
  /// A quantity that this folder does not hold, and why that is no error.
  void add_absent(const std::string& quantity, const std::string& why) {
    add({.quantity = quantity, .note = why, .absent = true});
  }

  const std::vector<VerifyRow>& rows() const { return rows_; }
  bool ok() const;
  std::string text() const;  ///< as a table for people
  Json json() const;         ///< array of {quantity, measure, error, tolerance, ok, absent, note}

 private:
  std::vector<VerifyRow> rows_;
};

/// The error between two tensors of one shape.
double difference(const at::Tensor& got, const at::Tensor& expected, Measure measure);

/// Verifies a folder of the family that its manifest names, with the model on `device`.
/// @throws DataError when the folder is not one that a parity script made.
VerifyTable verify_folder(const std::filesystem::path& folder, at::Device device = at::kCPU);

/// One family's part.
void verify_qwen2_5_vl(const std::filesystem::path& folder, const Json& manifest, at::Device device,
                       VerifyTable& table);

}  // namespace triptych
