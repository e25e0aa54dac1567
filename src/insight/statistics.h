#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

namespace triptych::insight {

/// Linear interpolation between order statistics (numpy's default); 0 for nothing.
inline double quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  std::ranges::sort(values);
  const double at = q * static_cast<double>(values.size() - 1);
  const auto low = static_cast<size_t>(at);
  const size_t high = std::min(low + 1, values.size() - 1);
  return values[low] + (values[high] - values[low]) * (at - static_cast<double>(low));
}

inline double median(std::vector<double> values) { return quantile(std::move(values), 0.5); }

inline double mean(std::span<const double> values) {
  double sum = 0;
  for (const double v : values) sum += v;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

/// Median of the absolute distances from the median.
inline double median_deviation(const std::vector<double>& values) {
  const double middle = median(values);
  std::vector<double> distances;
  for (const double v : values) distances.push_back(std::abs(v - middle));
  return median(std::move(distances));
}

/// 0.6745 (x - median) / MAD; 0 where all values agree.
inline double robust_z(double x, const std::vector<double>& values) {
  const double mad = median_deviation(values);
  return mad > 0 ? 0.6745 * (x - median(values)) / mad : 0;
}

}  // namespace triptych::insight
