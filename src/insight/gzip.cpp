#include "insight/gzip.h"

#include <zlib.h>

#include <algorithm>
#include <array>

#include "base/error.h"

namespace triptych::insight {
namespace {

constexpr int kGzipWindow = 15 + 16;  // zlib: the largest window, gzip header

}  // namespace

std::string gzip(std::string_view text, int level) {
  z_stream stream{};
  require(deflateInit2(&stream, level, Z_DEFLATED, kGzipWindow, 8, Z_DEFAULT_STRATEGY) == Z_OK,
          "gzip: no memory");
  std::string out(deflateBound(&stream, text.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  const int result = deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  require(result == Z_STREAM_END, "gzip: zlib error ", result);
  return out;
}

std::string gunzip(std::string_view packed, size_t limit) {
  z_stream stream{};
  require(inflateInit2(&stream, kGzipWindow) == Z_OK, "gunzip: no memory");
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
  stream.avail_in = static_cast<uInt>(packed.size());
  std::string out;
  std::array<char, 65536> buffer;
  int result = Z_OK;
  while (result == Z_OK && out.size() <= limit) {
    stream.next_out = reinterpret_cast<Bytef*>(buffer.data());
    stream.avail_out = static_cast<uInt>(buffer.size());
    result = inflate(&stream, Z_NO_FLUSH);
    out.append(buffer.data(), buffer.size() - stream.avail_out);
  }
  inflateEnd(&stream);
  require<DataError>(out.size() <= limit, "gunzip: more than ", limit, " bytes");
  require<DataError>(result == Z_STREAM_END, "gunzip: damaged or cut short, zlib says ", result);
  return out;
}

}  // namespace triptych::insight
