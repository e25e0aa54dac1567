#pragma once

// Pictures and videos of a record: its columns, and the tags and parts that use them.

#include <string>
#include <string_view>
#include <vector>

#include "data/record_errors.h"
#include "data/records.h"

namespace triptych {

class RecordMedia {
 public:
  /// @param errors  must outlive it
  explicit RecordMedia(const RecordErrors& errors) : errors_(errors) {}

  /// @throws DataError as everything here
  void read_columns(const Json& record, RecordFormat format, const RecordNames& names);
  /// A medium that stands in the turn itself.
  Part part(PartKind kind, const Json* value, const std::string& field) const;
  /// The next medium of the column; beyond its end tags are only counted, check_columns complains.
  void take(PartKind kind, Message& message);
  /// Text with tags.
  void add_tagged(std::string_view text, Message& message);
  /// Media of a column that no tag names at all: in front of the first user turn.
  void place_untagged(std::vector<Message>& turns);
  /// That there are as many media as tags.
  void check_columns() const;

 private:
  /// The media of a column, taken one by one as their tags come up.
  struct Column {
    PartKind kind = PartKind::kImage;
    std::string name;  // of the column; empty: the record has none
    std::vector<Part> items;
    size_t taken = 0;
    size_t tags = 0;  // may exceed the items
  };

  /// A picture's or video's place: a path, or a data: URI as it is.
  std::string path_of(const Json* value, const std::string& field) const;
  void read_column(const Json& record, Column& column, const std::string& name);

  const RecordErrors& errors_;
  Column images_{.kind = PartKind::kImage, .name = {}, .items = {}};
  Column videos_{.kind = PartKind::kVideo, .name = {}, .items = {}};
};

}  // namespace triptych
