#include "base/pickle_writer.h"

#include <bit>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace triptych {
namespace {

constexpr size_t kBatch = 1000, kFlush = size_t{1} << 16;

// Opcodes of Python's pickletools.
constexpr char kMark = '(', kStop = '.', kEmptyDict = '}', kEmptyList = ']', kSetItems = 'u',
               kAppends = 'e', kBinInt = 'J', kBinInt1 = 'K', kBinInt2 = 'M', kLong1 = '\x8a',
               kBinFloat = 'G', kNone = 'N', kTrue = '\x88', kFalse = '\x89', kShortText = '\x8c',
               kText = 'X', kGet = 'h', kLongGet = 'j', kMemoize = '\x94';

}  // namespace

PickleWriter::PickleWriter(Sink sink) : sink_(std::move(sink)) {
  static_assert(std::endian::native == std::endian::little, "a pickle's numbers are little endian");
  buffer_ = "\x80\x04";
}

template <class T>
void PickleWriter::raw(T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  buffer_.append(bytes, sizeof(T));
}

void PickleWriter::begin_value() {
  if (buffer_.size() >= kFlush) {
    sink_(buffer_);
    buffer_.clear();
  }
  if (levels_.empty()) return;
  auto& level = levels_.back();
  // Batches end between a value and the next key.
  if (level.count >= kBatch && (level.is_list || level.count % 2 == 0)) {
    op(level.is_list ? kAppends : kSetItems);
    op(kMark);
    level.count = 0;
  }
  ++level.count;
}

void PickleWriter::begin_dict() {
  begin_value();
  op(kEmptyDict);
  op(kMark);
  levels_.push_back({false});
}

void PickleWriter::end_dict() {
  require(!levels_.empty() && !levels_.back().is_list && levels_.back().count % 2 == 0,
          "pickle: no dict of whole pairs ends here; this is a bug");
  levels_.pop_back();
  op(kSetItems);
}

void PickleWriter::begin_list() {
  begin_value();
  op(kEmptyList);
  op(kMark);
  levels_.push_back({true});
}

void PickleWriter::end_list() {
  require(!levels_.empty() && levels_.back().is_list, "pickle: no list ends here; this is a bug");
  levels_.pop_back();
  op(kAppends);
}

void PickleWriter::text(std::string_view value) {
  const auto [at, is_new] = texts_.try_emplace(std::string(value), next_kept_);
  if (!is_new) return again(at->second);
  begin_value();
  if (value.size() < 256) {
    op(kShortText);
    raw(static_cast<uint8_t>(value.size()));
  } else {
    op(kText);
    raw(static_cast<uint32_t>(value.size()));
  }
  buffer_.append(value);
  op(kMemoize);
  ++next_kept_;
}

void PickleWriter::long_integer(uint64_t value, bool negative) {
  // Two's complement, as many bytes as needed for the value and its sign.
  char bytes[9];
  std::memcpy(bytes, &value, 8);
  bytes[8] = negative ? '\xff' : '\0';
  uint8_t size = 9;
  while (size > 1 && bytes[size - 1] == bytes[8] && (bytes[size - 2] < 0) == (bytes[8] < 0)) --size;
  op(kLong1);
  raw(size);
  buffer_.append(bytes, size);
}

void PickleWriter::integer(int64_t value) {
  begin_value();
  if (value >= 0 && value < 256) {
    op(kBinInt1);
    raw(static_cast<uint8_t>(value));
  } else if (value >= 0 && value < 65536) {
    op(kBinInt2);
    raw(static_cast<uint16_t>(value));
  } else if (value == static_cast<int32_t>(value)) {
    op(kBinInt);
    raw(static_cast<int32_t>(value));
  } else {
    long_integer(static_cast<uint64_t>(value), value < 0);
  }
}

void PickleWriter::address(uint64_t value) {
  begin_value();
  long_integer(value, false);
}

void PickleWriter::real(double value) {
  begin_value();
  op(kBinFloat);
  raw(__builtin_bswap64(std::bit_cast<uint64_t>(value)));
}

void PickleWriter::none() {
  begin_value();
  op(kNone);
}

void PickleWriter::boolean(bool value) {
  begin_value();
  op(value ? kTrue : kFalse);
}

uint32_t PickleWriter::keep() {
  op(kMemoize);
  return next_kept_++;
}

void PickleWriter::again(uint32_t kept) {
  begin_value();
  if (kept < 256) {
    op(kGet);
    raw(static_cast<uint8_t>(kept));
  } else {
    op(kLongGet);
    raw(kept);
  }
}

void PickleWriter::finish() {
  require(levels_.empty(), "pickle: a list or dict is open at the end; this is a bug");
  op(kStop);
  sink_(buffer_);
  buffer_.clear();
}

}  // namespace triptych
