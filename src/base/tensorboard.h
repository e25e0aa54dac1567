#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace triptych {

/// One record of an event file: length, CRC of the length, bytes, CRC of the bytes, all little
/// endian, CRCs masked (crc32c_masked).
std::string event_record(std::string_view event);

/// The first event of a file: its wall time and format version "brain.Event:2".
std::string version_event(double wall_seconds);

/// An Event message with simple values. Source: TensorFlow's event.proto and summary.proto (Event:
/// 1 wall_time double, 2 step int64, 5 summary; Summary: 1 repeated value; Value: 1 tag,
/// 2 simple_value float).
std::string scalar_event(double wall_seconds, int64_t step,
                         std::span<const std::pair<std::string, double>> scalars);

/// Writes scalars to a new event file that TensorBoard finds in `folder`. Files of earlier runs in
/// the folder stay; TensorBoard hides their steps from the first step on that a newer file repeats.
/// Used from one thread.
class EventWriter {
 public:
  /// Creates the folder and "events.out.tfevents.<seconds>.<host>.<pid>".
  explicit EventWriter(const std::filesystem::path& folder);
  ~EventWriter();
  EventWriter(const EventWriter&) = delete;
  EventWriter& operator=(const EventWriter&) = delete;

  /// Appends and hands to the system at once. @throws Error on a full disk.
  void write(int64_t step, std::span<const std::pair<std::string, double>> scalars);

  const std::filesystem::path& path() const { return path_; }

 private:
  void append(const std::string& event);
  std::filesystem::path path_;
  int file_ = -1;
};

}  // namespace triptych
