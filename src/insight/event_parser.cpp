#include "insight/event_parser.h"

#include <algorithm>
#include <optional>
#include <string>

#include "insight/event_args.h"
#include "insight/flops.h"
#include "insight/scan.h"

namespace triptych::insight {
namespace {

/// The members of an event outside `args`.
struct Fields {
  RawValue ph{}, cat{}, name{}, pid{}, tid{}, ts{}, dur{}, id{}, bp{}, scope{};
  const char* args = nullptr;
};

RawValue* field_of(std::string_view key, Fields& f) {
  switch (key.size()) {
    case 1:
      return key[0] == 's' ? &f.scope : nullptr;
    case 2:
      if (key == "ph") return &f.ph;
      if (key == "ts") return &f.ts;
      if (key == "id") return &f.id;
      if (key == "bp") return &f.bp;
      return nullptr;
    case 3:
      if (key == "cat") return &f.cat;
      if (key == "pid") return &f.pid;
      if (key == "tid") return &f.tid;
      if (key == "dur") return &f.dur;
      return nullptr;
    case 4:
      return key == "name" ? &f.name : nullptr;
    default:
      return nullptr;
  }
}

/// Walks the members of the object at p. `visit(key, p)` steps over a value and returns the place
/// behind it.
template <class Visit>
ParseStatus walk_object(const char*& p, const char* end, Visit&& visit) {
  ++p;
  for (;;) {
    p = skip_space(p);
    if (p >= end) return ParseStatus::kShort;
    if (*p == '}') {
      ++p;
      return ParseStatus::kOk;
    }
    if (*p == ',') {  // also a trailing one
      ++p;
      continue;
    }
    if (*p != '"') return ParseStatus::kBad;
    RawValue key;
    p = read_value(p, end, key);
    p = skip_space(p);
    if (p >= end) return ParseStatus::kShort;
    if (*p != ':') return ParseStatus::kBad;
    p = skip_space(p + 1);
    if (p >= end) return ParseStatus::kShort;
    const char* before = p;
    p = visit(key.text(), p);
    if (p > end) return ParseStatus::kShort;
    if (p == before) return ParseStatus::kBad;
  }
}

/// A pid or tid: a number, or a word that gets a number of its own far from real ones.
int64_t id_number(const RawValue& value) {
  if (value.begin == nullptr) return 0;
  if (const auto number = to_integer(value)) return *number;
  uint64_t hash = 1469598103934665603ull;
  for (const char c : value.text())
    hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ull;
  return -static_cast<int64_t>(hash >> 12) - 2;
}

std::string_view word(const RawValue& value) {
  return value.is_string && !to_integer(value) ? value.text() : std::string_view();
}

class Committer {
 public:
  Committer(const Fields& fields, const EventArgs& args, uint64_t args_offset, EventSink& sink)
      : f_(fields), args_(args), args_offset_(args_offset), sink_(sink) {}

  void commit() {
    const char phase = f_.ph.size == 1 ? *f_.ph.begin : '?';
    switch (phase) {
      case 'X':
      case 'B':
      case 'E':
        return slice(phase);
      case 'i':
      case 'I':
      case 'R':
        return instant();
      case 'b':
      case 'e':
      case 'S':
      case 'F':
        return async(phase == 'b' || phase == 'S' ? 'B' : 'E');
      case 's':
      case 'f':
      case 't':
        return flow(phase);
      case 'C':
        return counter();
      case 'M':
        return metadata();
      default:
        ++sink_.bad_events;
    }
  }

 private:
  StringId intern(const RawValue& value) {
    if (!value.escaped) return sink_.strings.intern(value.text());
    return sink_.strings.intern(unescape(value.text()));
  }
  StringId intern(ArgKey key) { return args_.has(key) ? intern(args_[key]) : 0; }
  int64_t integer(ArgKey key, int64_t otherwise) {
    return args_.has(key) ? to_integer(args_[key]).value_or(otherwise) : otherwise;
  }
  /// Bytes or elements. What no machine has is no size, and sums of the others fit into 64 bits.
  int64_t size(ArgKey key, int64_t otherwise) {
    constexpr int64_t kMost = int64_t{1} << 44;
    const auto value = integer(key, otherwise);
    return value >= -kMost && value <= kMost ? value : otherwise;
  }
  int32_t small(ArgKey key, int32_t otherwise) {
    const auto value = integer(key, otherwise);
    return value >= INT32_MIN && value <= INT32_MAX ? static_cast<int32_t>(value) : otherwise;
  }

  uint32_t track() {
    return sink_.track_of(id_number(f_.pid), id_number(f_.tid), word(f_.pid), word(f_.tid));
  }

  /// Time of the record; one without is counted.
  std::optional<int64_t> time() {
    const auto ts = micros_to_ns(f_.ts);
    if (!ts) ++sink_.untimed_events;
    return ts;
  }

  /// What every kind of event has; its track is still to come.
  RawEvent event_at(int64_t ts, char phase) {
    RawEvent event;
    event.ts = ts;
    event.phase = phase;
    event.category = category_of(f_.cat.text());
    event.name = intern(f_.name);
    event.args_offset = args_offset_;
    return event;
  }

  void slice(char phase) {
    const auto ts = time();
    if (!ts) return;
    RawEvent event = event_at(*ts, phase);
    event.dur = f_.dur.begin ? std::max<int64_t>(0, micros_to_ns(f_.dur).value_or(0)) : 0;
    event.track = track();
    event.correlation = id32(kCorrelation);
    event.external = id32(kExternalId);
    event.has_stream = integer(kStream, -1) >= 0;
    add_detail(event);
    sink_.events.push(event);
  }

  uint32_t id32(ArgKey key) {
    const auto value = integer(key, 0);
    return value > 0 && value < kNone ? static_cast<uint32_t>(value) : 0;
  }

  void add_detail(RawEvent& event) {
    switch (event.category) {
      case Category::kKernel:
      case Category::kMemcpy:
      case Category::kMemset:
        set_device();
        return add_kernel(event);
      case Category::kSync:
      case Category::kGpuUserAnnotation:
        return set_device();
      case Category::kCollective:
        event.detail = add_collective();
        return;
      case Category::kCpuOp:
        return add_op(event);
      case Category::kUserAnnotation:
        if (f_.name.text().starts_with("gloo:")) event.detail = add_gloo();
        return;
      default:
        return;
    }
  }

  void set_device() {
    auto& track = sink_.tracks[this->track()];
    if (track.device < 0) {
      const auto device =
          small(kDevice, static_cast<int32_t>(std::clamp<int64_t>(track.pid, 0, 4096)));
      track.device = std::clamp(device, 0, 1 << 20);
    }
  }

  uint32_t add_collective() {
    Collective c;
    c.name = intern(kCollectiveName);
    c.group = intern(kGroupName);
    c.group_tag = args_.has(kGroupTag) ? intern(kGroupTag) : intern(kGroupDescription);
    c.group_ranks = intern(kGroupRanks);
    c.dtype = intern(kDtype);
    c.group_size = small(kGroupSize, 0);
    c.src_rank = small(kSrcRank, -1);
    c.dst_rank = small(kDstRank, -1);
    c.in_elements = size(kInElements, -1);
    c.out_elements = size(kOutElements, -1);
    c.bytes = size(kBytesWritten, -1);
    c.sequence = integer(kSeq, -1);
    c.in_split = intern(kInSplit);
    if (args_.has(kWaitUs)) c.wait_ns = micros_to_ns(args_[kWaitUs]).value_or(-1);
    sink_.collectives.push_back(c);
    return static_cast<uint32_t>(sink_.collectives.size() - 1);
  }

  /// Gloo records only the shapes of what it sends: the payload follows from them.
  uint32_t add_gloo() {
    Collective c;
    c.name = sink_.strings.intern(f_.name.text().substr(5));
    if (args_.has(kInputDims)) c.in_elements = elements_of_dims(args_[kInputDims].text());
    if (args_.has(kInputType)) c.dtype = sink_.strings.intern(first_item(args_[kInputType].text()));
    sink_.collectives.push_back(c);
    return static_cast<uint32_t>(sink_.collectives.size() - 1);
  }

  void add_kernel(RawEvent& event) {
    KernelDetail k;
    if (args_.has(kGrid)) read_three(args_[kGrid].text(), k.grid);
    if (args_.has(kBlock)) read_three(args_[kBlock].text(), k.block);
    k.registers = small(kRegisters, 0);
    k.shared_bytes = small(kSharedMemory, 0);
    k.bytes = size(kCopyBytes, -1);
    if (args_.has(kOccupancy))
      k.occupancy_percent = static_cast<float>(to_number(args_[kOccupancy]).value_or(-1));
    if (args_.has(kBandwidth))
      k.bandwidth_gbps = static_cast<float>(to_number(args_[kBandwidth]).value_or(0));
    if (args_.has(kCollectiveName)) k.collective = add_collective();
    event.detail = static_cast<uint32_t>(sink_.kernels.size());
    sink_.kernels.push_back(k);
  }

  void add_op(RawEvent& event) {
    OpDetail op;
    op.sequence = integer(kSequence, -1);
    op.forward_thread = integer(kForwardThread, 0);
    op.shapes = intern(kInputDims);
    op.types = intern(kInputType);
    // Values of scalars differ from call to call; only messages (their peer) and convolutions
    // (stride and the like) need them.
    const auto name = f_.name.text();
    if (name.starts_with("c10d::") || needs_concrete_inputs(name)) op.concrete = intern(kConcrete);
    if (op.sequence < 0 && op.shapes == 0 && op.forward_thread == 0 && op.concrete == 0) return;
    event.detail = static_cast<uint32_t>(sink_.ops.size());
    sink_.ops.push_back(op);
  }

  void instant() {
    const auto ts = time();
    if (!ts) return;
    if (f_.name.text() == "[memory]" && args_.has(kBytesWritten)) {
      MemoryEvent m;
      m.ts_ns = *ts;
      m.address = static_cast<uint64_t>(integer(kAddr, 0));
      m.bytes = size(kBytesWritten, 0);
      m.total_allocated = size(kTotalAllocated, -1);
      m.total_reserved = size(kTotalReserved, -1);
      m.device_type = small(kDeviceType, 0);
      m.device = small(kDeviceId, -1);
      m.track = track();
      m.category = intern(kMemoryCategory);
      m.module = intern(kMemoryModule);
      sink_.memory.push_back(m);
      return;
    }
    RawEvent event = event_at(*ts, 'X');
    // Marks of the collection itself; the second stands in a process without a name.
    if (f_.name.text().starts_with("Iteration Start") || f_.name.text() == "Record Window End")
      event.category = Category::kSpan;
    event.track = track();
    sink_.events.push(event);
  }

  void async(char phase) {
    const auto ts = time();
    if (!ts) return;
    RawEvent event = event_at(*ts, phase);
    // One lane per id: asynchronous events of different ids overlap.
    event.track = sink_.track_of(id_number(f_.pid), id_number(f_.id) ^ (int64_t{1} << 61),
                                 word(f_.pid), f_.cat.text());
    sink_.events.push(event);
  }

  void flow(char phase) {
    const auto cat = f_.cat.text();
    // Launches are matched by correlation id, which also covers what has no arrow.
    if (phase == 't' || cat == "ac2g" || cat == "async_cpu_to_gpu") return;
    const auto ts = micros_to_ns(f_.ts);
    if (!ts || f_.id.begin == nullptr) return;
    uint64_t id = static_cast<uint64_t>(id_number(f_.id)) * 0x9E3779B97F4A7C15ull;
    for (const char c : cat) id = (id ^ static_cast<unsigned char>(c)) * 1099511628211ull;
    sink_.flows.push_back({id, *ts, track(), phase == 's'});
  }

  void counter() {
    const auto ts = micros_to_ns(f_.ts);
    if (!ts || !f_.name.begin) return;
    const auto name = intern(f_.name);
    const uint32_t on =
        sink_.track_of(id_number(f_.pid), (int64_t{1} << 62) + name, word(f_.pid), "");
    for (const auto& [key, value] : args_.others()) {
      const auto number = to_number(value);
      if (number) sink_.counters.push_back({*ts, *number, on, sink_.strings.intern(key)});
    }
    sink_.tracks[on].name = name;
  }

  void metadata() {
    const auto what = f_.name.text();
    RawTrack& target = what.starts_with("process_")
                           ? sink_.process_of(id_number(f_.pid), word(f_.pid))
                           : sink_.tracks[track()];
    if (what.ends_with("_name")) {
      target.name = intern(kMetaName);
      target.named = true;
    } else if (what.ends_with("_sort_index")) {
      target.sort_index = small(kSortIndex, 0);
      target.sorted = true;
    }
  }

  const Fields& f_;
  const EventArgs& args_;
  uint64_t args_offset_;
  EventSink& sink_;
};

}  // namespace

ParseStatus parse_event(const char*& p, const char* end, uint64_t offset, EventSink& sink) {
  Fields fields;
  EventArgs args;
  const char* at = p;
  const auto status = walk_object(at, end, [&](std::string_view key, const char* value) {
    if (key == "args" && *value == '{') {
      fields.args = value;
      const char* inside = value;
      const auto read = walk_object(inside, end, [&](std::string_view name, const char* v) {
        RawValue raw;
        v = read_value(v, end, raw);
        if (v <= end) args.put(name, raw);
        return v;
      });
      if (read == ParseStatus::kShort) return end + 1;
      return read == ParseStatus::kBad ? value : inside;
    }
    RawValue scratch;
    RawValue* field = field_of(key, fields);
    return read_value(value, end, field ? *field : scratch);
  });
  if (status != ParseStatus::kOk) return status;
  if (fields.ph.begin == nullptr) return ParseStatus::kBad;
  const uint64_t args_offset = fields.args ? offset + static_cast<uint64_t>(fields.args - p) : 0;
  Committer(fields, args, args_offset, sink).commit();
  p = at;
  return ParseStatus::kOk;
}

ParseStatus looks_like_event(const char* p, const char* end) {
  bool has_phase = false;
  const auto status = walk_object(p, end, [&](std::string_view key, const char* value) {
    has_phase = has_phase || key == "ph";
    return skip_value(value, end);
  });
  if (status != ParseStatus::kOk) return status;
  return has_phase ? ParseStatus::kOk : ParseStatus::kBad;
}

}  // namespace triptych::insight
