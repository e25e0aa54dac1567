#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace triptych {

/// Writes a pickle (protocol 4) of plain data as it comes: what Python's pickle.load and PyTorch's
/// memory page read. Values follow each other as in JSON; a dict takes keys and values in turn.
///
///   PickleWriter pickle(sink);
///   pickle.begin_dict();
///   pickle.text("sizes"); pickle.begin_list(); pickle.integer(3); pickle.end_list();
///   pickle.end_dict();
///   pickle.finish();
///
/// Equal texts are stored once. Elements of lists are appended a thousand at a time, since that
/// page passes them as arguments of one call.
class PickleWriter {
 public:
  using Sink = std::function<void(std::string_view)>;
  /// @param sink  gets the bytes in order; what it throws comes through.
  explicit PickleWriter(Sink sink);

  void begin_dict();
  void end_dict();
  void begin_list();
  void end_list();
  void text(std::string_view value);
  void integer(int64_t value);
  void address(uint64_t value);
  void real(double value);
  void none();
  void boolean(bool value);

  /// Keeps the value just ended, so that `again` puts the same object anywhere else.
  uint32_t keep();
  void again(uint32_t kept);

  /// Ends the pickle and hands everything to the sink.
  void finish();

 private:
  struct Level {
    bool is_list;
    size_t count = 0;  ///< values since the last mark
  };
  void op(char code) { buffer_.push_back(code); }
  template <class T>
  void raw(T value);
  void long_integer(uint64_t value, bool negative);
  /// Before any value: a new batch where one is full, and what the buffer holds to the sink.
  void begin_value();

  Sink sink_;
  std::string buffer_;
  std::vector<Level> levels_;
  std::unordered_map<std::string, uint32_t> texts_;
  uint32_t next_kept_ = 0;
};

}  // namespace triptych
