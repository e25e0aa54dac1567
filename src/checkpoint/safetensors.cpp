#include "checkpoint/safetensors.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <unordered_map>

#include "base/error.h"
#include "base/files.h"
#include "checkpoint/host_memory.h"

namespace triptych {
namespace {

constexpr int64_t kPieceBytes = int64_t{4} << 20;  // of one thread's reads
constexpr int64_t kShortRunBytes = int64_t{64}
                                   << 10;  // shorter runs are read with what lies between

constexpr std::array<std::pair<StoredType, at::ScalarType>, 17> kScalarTypes = {
    {{StoredType::kBool, at::kBool},
     {StoredType::kU8, at::kByte},
     {StoredType::kI8, at::kChar},
     {StoredType::kF8E4M3, at::kFloat8_e4m3fn},
     {StoredType::kF8E5M2, at::kFloat8_e5m2},
     {StoredType::kF8E8M0, at::kFloat8_e8m0fnu},
     {StoredType::kI16, at::kShort},
     {StoredType::kU16, at::kUInt16},
     {StoredType::kF16, at::kHalf},
     {StoredType::kBF16, at::kBFloat16},
     {StoredType::kI32, at::kInt},
     {StoredType::kU32, at::kUInt32},
     {StoredType::kF32, at::kFloat},
     {StoredType::kC64, at::kComplexFloat},
     {StoredType::kI64, at::kLong},
     {StoredType::kU64, at::kUInt64},
     {StoredType::kF64, at::kDouble}}};

/// Equal stretches of a flattened tensor, in elements: what a slice is in memory.
struct Runs {
  int64_t first = 0;   ///< where the first one begins
  int64_t count = 1;   ///< how many
  int64_t length = 0;  ///< of each
  int64_t stride = 0;  ///< from one's begin to the next one's

  int64_t elements() const { return count * length; }
};

Runs runs_of(const StoredTensor& tensor, const std::optional<TensorSlice>& slice) {
  const int64_t numel = tensor.numel();
  if (!slice) return {.length = numel, .stride = numel};
  int64_t inner = 1, outer = 1;
  for (int64_t dim = 0; dim < static_cast<int64_t>(tensor.shape.size()); ++dim) {
    (dim < slice->dim ? outer : inner) *= dim == slice->dim ? 1 : tensor.shape[dim];
  }
  const int64_t stride = inner * tensor.shape[slice->dim];
  const Runs runs{slice->start * inner, outer, slice->length * inner, stride};
  return runs.length == stride ? Runs{0, 1, numel, numel} : runs;
}

std::vector<int64_t> sliced_shape(const StoredTensor& tensor,
                                  const std::optional<TensorSlice>& slice,
                                  const std::filesystem::path& path) {
  std::vector<int64_t> shape = tensor.shape;
  if (!slice) return shape;
  const auto dims = static_cast<int64_t>(shape.size());
  require(slice->dim >= 0 && slice->dim < dims && slice->start >= 0 && slice->length >= 0 &&
              slice->start <= shape[slice->dim] - slice->length,
          path.string(), ": tensor '", tensor.name, "' is ", at::IntArrayRef(shape),
          ", which has no slice [", slice->start, ", ", slice->start + slice->length, ") of dim ",
          slice->dim);
  shape[slice->dim] = slice->length;
  return shape;
}

/// Reads one tensor's runs from an open file into flat contiguous memory of the CPU.
class RunReader {
 public:
  RunReader(int fd, const std::filesystem::path& path, const StoredTensor& tensor,
            int64_t data_begin, Runs runs, const at::Tensor& flat)
      : fd_(fd),
        path_(path),
        tensor_(tensor),
        data_begin_(data_begin),
        runs_(runs),
        flat_(flat),
        type_(scalar_type_of(tensor.type)),
        item_(stored_type_bytes(tensor.type)) {}

  void read() const {
    if (runs_.elements() == 0) return;
    const bool sparse = runs_.count == 1 || runs_.length * item_ >= kShortRunBytes;
    sparse ? read_each_run() : read_with_gaps();
  }

 private:
  /// Only the runs are read.
  void read_each_run() const {
    const int64_t piece = kPieceBytes / item_;
    const int64_t pieces = (runs_.length + piece - 1) / piece;  // of one run
    at::parallel_for(0, runs_.count * pieces, 1, [&](int64_t begin, int64_t end) {
      std::vector<std::byte> buffer;
      for (int64_t i = begin; i < end; ++i) {
        const int64_t run = i / pieces, at = i % pieces * piece;
        const int64_t length = std::min(piece, runs_.length - at);
        const int64_t from = runs_.first + run * runs_.stride + at;
        const auto to = flat_.narrow(0, run * runs_.length + at, length);
        if (flat_.scalar_type() == type_) {
          pread_all(static_cast<std::byte*>(to.data_ptr()), from, length);
        } else {
          buffer.resize(length * item_);
          pread_all(buffer.data(), from, length);
          to.copy_(at::from_blob(buffer.data(), {length}, at::dtype(type_)));
        }
      }
    });
  }

  /// Several short runs are read with what lies between them, then gathered.
  void read_with_gaps() const {
    const int64_t group = std::max<int64_t>(1, kPieceBytes / (runs_.stride * item_));
    at::parallel_for(0, (runs_.count + group - 1) / group, 1, [&](int64_t begin, int64_t end) {
      std::vector<std::byte> buffer;
      for (int64_t i = begin; i < end; ++i) {
        const int64_t run = i * group, runs = std::min(group, runs_.count - run);
        const int64_t length = (runs - 1) * runs_.stride + runs_.length;
        buffer.resize(length * item_);
        pread_all(buffer.data(), runs_.first + run * runs_.stride, length);
        const auto from =
            at::from_blob(buffer.data(), {runs, runs_.length}, {runs_.stride, 1}, at::dtype(type_));
        flat_.narrow(0, run * runs_.length, from.numel()).view(from.sizes()).copy_(from);
      }
    });
  }

  void pread_all(std::byte* to, int64_t element, int64_t count) const {
    int64_t offset = data_begin_ + tensor_.begin + element * item_, left = count * item_;
    while (left > 0) {
      const ssize_t n = ::pread(fd_, to, left, offset);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) fail_errno(path_, "cannot be read");
      require<DataError>(n > 0, path_.string(), ": tensor '", tensor_.name,
                         "': the file ended at byte ", offset, " while it was read");
      to += n, offset += n, left -= n;
    }
  }

  int fd_;
  const std::filesystem::path& path_;
  const StoredTensor& tensor_;
  int64_t data_begin_;
  Runs runs_;
  at::Tensor flat_;
  at::ScalarType type_;
  int64_t item_;
};

}  // namespace

at::ScalarType scalar_type_of(StoredType type) {
  return std::find_if(kScalarTypes.begin(), kScalarTypes.end(),
                      [type](const auto& pair) { return pair.first == type; })
      ->second;
}

StoredType stored_type_of(at::ScalarType type) {
  const auto* const at = std::find_if(kScalarTypes.begin(), kScalarTypes.end(),
                                      [type](const auto& pair) { return pair.second == type; });
  require(at != kScalarTypes.end(), "safetensors: has no name for dtype ", type);
  return at->first;
}

struct SafetensorsFile::Index {
  std::unordered_map<std::string_view, const StoredTensor*> tensors;
};

std::shared_ptr<SafetensorsFile> SafetensorsFile::open(const std::filesystem::path& path) {
  std::shared_ptr<SafetensorsFile> file(new SafetensorsFile);
  file->path_ = path;
  file->fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file->fd_ < 0) fail_errno(path, "cannot be read");
  struct stat info{};
  if (::fstat(file->fd_, &info) != 0) fail_errno(path, "cannot be examined");
  require<DataError>(S_ISREG(info.st_mode), path.string(), ": is not a file");
  std::string_view text;
  if (info.st_size > 0) {
    file->size_ = static_cast<size_t>(info.st_size);
    void* data = ::mmap(nullptr, file->size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE,
                        file->fd_, 0);
    if (data == MAP_FAILED) fail_errno(path, "cannot be mapped");
    file->data_ = static_cast<std::byte*>(data);
    text = {static_cast<const char*>(data), file->size_};
  }
  file->header_ = parse_safetensors_header(text, info.st_size, path.string());
  file->index_ = std::make_unique<Index>();
  for (const auto& tensor : file->header_.tensors) file->index_->tensors[tensor.name] = &tensor;
  return file;
}

SafetensorsFile::~SafetensorsFile() {
  if (data_ != nullptr) ::munmap(data_, size_);
  if (fd_ >= 0) ::close(fd_);
}

const StoredTensor* SafetensorsFile::find(std::string_view name) const {
  const auto at = index_->tensors.find(name);
  return at == index_->tensors.end() ? nullptr : at->second;
}

const StoredTensor& SafetensorsFile::at(std::string_view name) const {
  const auto* tensor = find(name);
  require<DataError>(tensor != nullptr, path_.string(), ": has no tensor '", name, "' among its ",
                     header_.tensors.size());
  return *tensor;
}

at::Tensor SafetensorsFile::view(std::string_view name) const {
  const auto& tensor = at(name);
  const auto type = at::dtype(scalar_type_of(tensor.type));
  std::byte* const begin = data_ + header_.data_begin() + tensor.begin;
  const bool aligned = reinterpret_cast<uintptr_t>(begin) % stored_type_bytes(tensor.type) == 0;
  if (tensor.bytes() == 0 || !aligned) return read(name);
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto first = reinterpret_cast<uintptr_t>(begin) / page * page;
  ::madvise(reinterpret_cast<void*>(first),
            reinterpret_cast<uintptr_t>(begin) + tensor.bytes() - first, MADV_WILLNEED);
  return at::from_blob(begin, tensor.shape, [self = shared_from_this()](void*) {}, type);
}

at::Tensor SafetensorsFile::read(std::string_view name, std::optional<at::ScalarType> dtype,
                                 std::optional<TensorSlice> slice) const {
  const auto& tensor = at(name);
  auto result = at::empty(sliced_shape(tensor, slice, path_),
                          at::dtype(dtype.value_or(scalar_type_of(tensor.type))));
  advise_huge_pages(result);
  read_into(name, result, slice);
  return result;
}

void SafetensorsFile::read_into(std::string_view name, const at::Tensor& destination,
                                std::optional<TensorSlice> slice) const {
  const auto& tensor = at(name);
  const auto shape = sliced_shape(tensor, slice, path_);
  require<DataError>(destination.sizes() == at::IntArrayRef(shape), path_.string(), ": tensor '",
                     name, "' ", slice ? "(slice) " : "", "is ", at::IntArrayRef(shape),
                     ", the destination is ", destination.sizes());
  const auto to = destination.detach();  // filling a parameter is no step of autograd
  if (to.device().is_cpu() && to.is_contiguous()) {
    RunReader(fd_, path_, tensor, header_.data_begin(), runs_of(tensor, slice), to.view({-1}))
        .read();
    return;
  }
  // Elsewhere: through the host in the stored dtype, so that the narrower one crosses.
  to.copy_(read(name, {}, slice));
}

void SafetensorsFile::read_range(std::string_view name, int64_t begin,
                                 const at::Tensor& destination) const {
  const auto& tensor = at(name);
  const int64_t count = destination.numel();
  require(begin >= 0 && begin <= tensor.numel() - count, path_.string(), ": tensor '", name,
          "' has ", tensor.numel(), " elements, asked for are [", begin, ", ", begin + count, ")");
  const auto to = destination.detach();
  const bool direct = to.device().is_cpu() && to.is_contiguous();
  const auto host = direct ? to : at::empty(to.sizes(), to.options().device(at::kCPU));
  RunReader(fd_, path_, tensor, header_.data_begin(), {begin, 1, count, count}, host.view({-1}))
      .read();
  if (!direct) to.copy_(host);
}

}  // namespace triptych
