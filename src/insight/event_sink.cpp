#include "insight/event_sink.h"

namespace triptych::insight {

uint32_t EventSink::track_of(int64_t pid, int64_t tid, std::string_view pid_text,
                             std::string_view tid_text) {
  const Key key{pid, tid};
  if (last_track_ != kNone && key == last_key_) return last_track_;
  const auto [at, added] = index_.try_emplace(key, static_cast<uint32_t>(tracks.size()));
  if (added) {
    RawTrack track{.pid = pid, .tid = tid};
    track.pid_text = strings.intern(pid_text);
    track.tid_text = strings.intern(tid_text);
    tracks.push_back(track);
  }
  last_key_ = key;
  last_track_ = at->second;
  return last_track_;
}

RawTrack& EventSink::process_of(int64_t pid, std::string_view pid_text) {
  const auto [at, added] = process_index_.try_emplace(pid, static_cast<uint32_t>(processes.size()));
  if (added) {
    RawTrack process{.pid = pid};
    process.pid_text = strings.intern(pid_text);
    processes.push_back(process);
  }
  return processes[at->second];
}

}  // namespace triptych::insight
