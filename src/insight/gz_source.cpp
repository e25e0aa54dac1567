#include "insight/gz_source.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace triptych::insight {
namespace {

constexpr size_t kInput = 256 << 10;
constexpr size_t kBlock = 2 << 20;
constexpr size_t kBlocksAhead = 3;
constexpr uint64_t kPointDistance = 8 << 20;
// Real traces shrink 8 to 40 times. Beyond this a file is made to fill memory or time.
constexpr uint64_t kMostExpansion = 400, kExpansionFrom = 256 << 20;

}  // namespace

GzInflater::GzInflater(const std::filesystem::path& path, const GzPoint* point, const char* window)
    : file_(path, point ? point->in - (point->bits ? 1 : 0) : 0), input_(kInput, '\0') {
  raw_ = point != nullptr;
  // 15 + 16: gzip framing with the largest window; -15: bare deflate
  if (inflateInit2(&stream_, raw_ ? -15 : 15 + 16) != Z_OK) fail("zlib: cannot be initialised");
  if (!point) return;
  out_ = point->out;
  if (point->bits) {
    char byte = 0;
    if (file_.read(&byte, 1) != 1) return;
    inflatePrime(&stream_, static_cast<int>(point->bits),
                 static_cast<unsigned char>(byte) >> (8 - point->bits));
  }
  inflateSetDictionary(&stream_, reinterpret_cast<const Bytef*>(window), point->window_size);
}

GzInflater::~GzInflater() { inflateEnd(&stream_); }

bool GzInflater::refill() {
  if (stream_.avail_in > 0) return true;
  stream_.next_in = reinterpret_cast<Bytef*>(input_.data());
  stream_.avail_in = static_cast<uInt>(file_.read(input_.data(), input_.size()));
  return stream_.avail_in > 0;
}

bool GzInflater::next_member() {
  if (raw_) {  // the member's checksum and length, then perhaps another member
    for (int i = 0; i < 8; ++i) {
      if (!refill()) return false;
      ++stream_.next_in;
      --stream_.avail_in;
    }
    raw_ = false;
  }
  if (!refill() || *stream_.next_in != 0x1f) return false;  // the end, or padding
  return inflateReset2(&stream_, 15 + 16) == Z_OK;
}

void GzInflater::note_point() {
  GzPoint point;
  point.out = out_;
  point.in = disk_bytes();
  point.bits = static_cast<uint32_t>(stream_.data_type & 7);
  point.window = windows.size();
  windows.resize(windows.size() + 32768);
  uInt size = 32768;
  inflateGetDictionary(&stream_, reinterpret_cast<Bytef*>(&windows[point.window]), &size);
  windows.resize(point.window + size);
  point.window_size = size;
  points.push_back(point);
}

size_t GzInflater::read(char* to, size_t size) {
  size_t have = 0;
  while (have < size && !ended_) {
    if (!refill()) {
      problem_ = "the compressed file breaks off";
      ended_ = true;
      break;
    }
    stream_.next_out = reinterpret_cast<Bytef*>(to + have);
    stream_.avail_out = static_cast<uInt>(std::min<size_t>(size - have, 1u << 30));
    const uInt room = stream_.avail_out;
    const int status = inflate(&stream_, distance_ ? Z_BLOCK : Z_NO_FLUSH);
    have += room - stream_.avail_out;
    out_ += room - stream_.avail_out;
    if (status == Z_STREAM_END) {
      ended_ = !next_member();
    } else if (status != Z_OK && status != Z_BUF_ERROR) {
      problem_ = std::string("the compressed file is damaged: ") +
                 (stream_.msg ? stream_.msg : "wrong data");
      ended_ = true;
    } else if (out_ > kExpansionFrom && out_ / kMostExpansion > disk_bytes()) {
      problem_ = "the compressed file expands more than 400 times; the rest is left out";
      ended_ = true;
    } else if (distance_ && (stream_.data_type & 128) && !(stream_.data_type & 64) &&
               out_ >= (points.empty() ? 0 : points.back().out) + distance_) {
      note_point();
    }
  }
  return have;
}

GzSource::GzSource(const std::filesystem::path& path) : inflater_(path) {
  inflater_.note_points(kPointDistance);
  thread_ = std::thread([this] { work(); });
}

GzSource::~GzSource() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void GzSource::work() {
  try {
    for (;;) {
      std::string block(kBlock, '\0');
      size_t have = 0;
      while (have < kBlock) {
        const size_t got = inflater_.read(block.data() + have, kBlock - have);
        if (got == 0) break;
        have += got;
      }
      block.resize(have);
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return stop_ || blocks_.size() < kBlocksAhead; });
      if (stop_) break;
      disk_bytes_ = inflater_.disk_bytes();
      if (have == 0) break;
      blocks_.push_back(std::move(block));
      changed_.notify_all();
    }
  } catch (...) {
    const std::lock_guard lock(mutex_);
    failure_ = std::current_exception();
  }
  const std::lock_guard lock(mutex_);
  done_ = true;
  changed_.notify_all();
}

size_t GzSource::read(char* to, size_t size) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return done_ || !blocks_.empty(); });
  if (blocks_.empty()) {
    if (failure_) std::rethrow_exception(failure_);
    return 0;
  }
  const auto& block = blocks_.front();
  const size_t n = std::min(size, block.size() - used_);
  std::memcpy(to, block.data() + used_, n);
  used_ += n;
  if (used_ == block.size()) {
    blocks_.pop_front();
    used_ = 0;
    changed_.notify_all();
  }
  return n;
}

uint64_t GzSource::disk_bytes() const {
  const std::lock_guard lock(mutex_);
  return disk_bytes_;
}

std::string GzSource::problem() const {
  const std::lock_guard lock(mutex_);
  return done_ ? inflater_.problem() : std::string();
}

std::vector<GzPoint> GzSource::points() const {
  const std::lock_guard lock(mutex_);
  return done_ ? inflater_.points : std::vector<GzPoint>();
}

std::string GzSource::windows() const {
  const std::lock_guard lock(mutex_);
  return done_ ? inflater_.windows : std::string();
}

}  // namespace triptych::insight
