#include "insight/event_args.h"

#include <algorithm>
#include <cctype>
#include <string>

namespace triptych::insight {

ArgKey arg_key(std::string_view key) {
  const auto pick = [&](std::string_view text, ArgKey value) {
    return key == text ? value : kNumArgKeys;
  };
  switch (key.size()) {
    case 3:
      return pick("Seq", kSeq);
    case 4:
      if (key == "grid") return kGrid;
      if (key == "Addr") return kAddr;
      return pick("name", kMetaName);
    case 5:
      if (key == "bytes") return kCopyBytes;
      if (key == "Bytes") return kBytesWritten;
      if (key == "block") return kBlock;
      return pick("dtype", kDtype);
    case 6:
      if (key == "stream") return kStream;
      if (key == "Module") return kMemoryModule;
      return pick("device", kDevice);
    case 7:
      return pick("Wait us", kWaitUs);
    case 8:
      if (key == "Src Rank") return kSrcRank;
      if (key == "Dst Rank") return kDstRank;
      return pick("Category", kMemoryCategory);
    case 9:
      if (key == "Group tag") return kGroupTag;
      return pick("Device Id", kDeviceId);
    case 10:
      if (key == "Input Dims") return kInputDims;
      if (key == "Input type") return kInputType;
      if (key == "sort_index") return kSortIndex;
      return pick("Group size", kGroupSize);
    case 11:
      if (key == "External id" || key == "External Id" || key == "external id") return kExternalId;
      if (key == "correlation") return kCorrelation;
      return pick("Device Type", kDeviceType);
    case 13:
      if (key == "Fwd thread id") return kForwardThread;
      if (key == "shared memory") return kSharedMemory;
      if (key == "In split size") return kInSplit;
      return pick("In msg nelems", kInElements);
    case 14:
      if (key == "Total Reserved") return kTotalReserved;
      return pick("Out msg nelems", kOutElements);
    case 15:
      if (key == "Sequence number") return kSequence;
      if (key == "Concrete Inputs") return kConcrete;
      if (key == "Total Allocated") return kTotalAllocated;
      return pick("Collective name", kCollectiveName);
    case 18:
      return pick("Process Group Name", kGroupName);
    case 19:
      return pick("Process Group Ranks", kGroupRanks);
    case 20:
      return pick("registers per thread", kRegisters);
    case 23:
      return pick("memory bandwidth (GB/s)", kBandwidth);
    case 25:
      if (key == "Process Group Description") return kGroupDescription;
      return pick("est. achieved occupancy %", kOccupancy);
    default:
      return kNumArgKeys;
  }
}

int64_t elements_of_dims(std::string_view dims) {
  size_t at = 0;
  while (at < dims.size() && dims[at] != ']' && (dims[at] < '0' || dims[at] > '9')) ++at;
  if (at == dims.size()) return -1;
  if (dims[at] == ']') return dims.starts_with("[[") ? 1 : -1;
  int64_t product = 1;
  while (at < dims.size() && dims[at] != ']') {
    if (dims[at] < '0' || dims[at] > '9') {
      ++at;
      continue;
    }
    int64_t number = 0;
    for (; at < dims.size() && dims[at] >= '0' && dims[at] <= '9'; ++at)
      number = std::min<int64_t>(number * 10 + (dims[at] - '0'), int64_t{1} << 40);
    if (number != 0 && product > (int64_t{1} << 50) / number) return -1;
    product *= number;
  }
  return product;
}

std::string_view first_item(std::string_view list) {
  const auto open = list.find('"');
  if (open == std::string_view::npos) return list;
  const auto close = list.find('"', open + 1);
  return list.substr(open + 1, close == std::string_view::npos ? list.size() : close - open - 1);
}

void read_three(std::string_view list, int32_t (&out)[3]) {
  size_t at = 0;
  for (int i = 0; i < 3; ++i) {
    while (at < list.size() && (list[at] < '0' || list[at] > '9')) ++at;
    int64_t number = 0;
    for (; at < list.size() && list[at] >= '0' && list[at] <= '9'; ++at)
      number = std::min<int64_t>(number * 10 + (list[at] - '0'), INT32_MAX);
    out[i] = static_cast<int32_t>(number);
  }
}

int dtype_bytes(std::string_view dtype) {
  std::string name;
  for (const char c :
       dtype.substr(dtype.rfind(':') == std::string_view::npos ? 0 : dtype.rfind(':') + 1))
    name += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  struct Row {
    std::string_view name;
    int bytes;
  };
  static constexpr Row kRows[] = {
      {"float", 4},       {"float32", 4},       {"fp32", 4}, {"int", 4},      {"int32", 4},
      {"double", 8},      {"float64", 8},       {"long", 8}, {"int64", 8},    {"long int", 8},
      {"half", 2},        {"float16", 2},       {"fp16", 2}, {"bfloat16", 2}, {"bf16", 2},
      {"short", 2},       {"int16", 2},         {"byte", 1}, {"uint8", 1},    {"char", 1},
      {"signed char", 1}, {"unsigned char", 1}, {"int8", 1}, {"bool", 1},     {"float8_e4m3fn", 1},
      {"float8_e5m2", 1}};
  for (const auto& row : kRows)
    if (row.name == name) return row.bytes;
  return 0;
}

}  // namespace triptych::insight
