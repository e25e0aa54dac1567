#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "data/record_file.h"
#include "data/records.h"
#include "data/stream_order.h"
#include "data/text/conversation.h"

namespace triptych {

/// One record file and how to read it.
struct RecordSource {
  std::filesystem::path path;
  RecordFormat format = RecordFormat::kAuto;
  RecordNames names;
  std::filesystem::path media;  ///< folder of its media; empty: the file's own folder
  double weight = 1.0, repeat = 1.0;
};

/// Several record files, mapped; a record is read and parsed when it is asked for.
/// Threads: any number may call any const function at once.
class Dataset {
 public:
  /// @param run_folder  what relative paths of sources, and media paths that the media folder does
  ///                    not have, are relative to; empty: the current folder
  /// @throws DataError  when a file is no record file, or a media folder is missing.
  explicit Dataset(std::vector<RecordSource> sources, std::filesystem::path run_folder = {});

  int32_t num_sources() const { return static_cast<int32_t>(files_.size()); }
  const RecordFile& file(int32_t source) const { return files_[static_cast<size_t>(source)]; }
  int64_t size(int32_t source) const { return file(source).size(); }

  /// Records of all sources.
  int64_t size() const;

  /// For StreamOrder.
  std::vector<SourceShare> shares() const;

  /// The record in normal form. Media are paths that exist (the media folder first, then as
  /// written, relative to the run folder), or data: URIs.
  /// @throws DataError "file:line: ..." for a bad record or a missing file.
  Conversation conversation(RecordRef ref) const;

  std::string origin(RecordRef ref) const { return file(ref.source).origin(ref.record); }

 private:
  std::string find_media(const std::string& written, int32_t source,
                         const std::string& origin) const;

  std::vector<RecordSource> sources_;
  std::filesystem::path run_folder_;
  std::vector<RecordFile> files_;
};

}  // namespace triptych
