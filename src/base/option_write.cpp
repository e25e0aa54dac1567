#include <algorithm>

#include "base/format.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/option_io.h"

namespace triptych {
namespace {

using Kind = OptionSchema::Kind;

void list_table(const TableSchema& table, const void* object, const void* defaults,
                const std::string& prefix, std::vector<OptionLine>& lines) {
  for (const OptionSchema& option : table.options) {
    if (option.kind == Kind::kValue) {
      OptionLine line{prefix + option.name, option.get(object), false, &option};
      line.is_default = value_text(line.value) == value_text(option.get(defaults));
      lines.push_back(std::move(line));
      continue;
    }
    const std::shared_ptr<void> fresh = option.table->make();
    for (size_t i = 0; i < option.count(object); ++i) {
      // A plain table is compared with what the struct around it says, which may set it otherwise.
      const void* compare = option.kind == Kind::kTable ? option.at(defaults, 0) : fresh.get();
      const std::string path = option.kind == Kind::kTableList
                                   ? fmt::format("{}{}[{}].", prefix, option.name, i)
                                   : prefix + option.name + ".";
      list_table(*option.table, option.at(object, i), compare, path, lines);
    }
  }
}

void write_table(const TableSchema& table, const void* object, const std::string& path,
                 std::string& text) {
  for (const OptionSchema& option : table.options) {
    if (option.kind != Kind::kValue) continue;
    const OptionValue value = option.get(object);
    if (value.is_unset()) {
      text += fmt::format("# {} is not set\n", option.name);
    } else {
      text += fmt::format("{} = {}\n", option.name, value_text(value));
    }
  }
  for (const OptionSchema& option : table.options) {
    if (option.kind == Kind::kValue) continue;
    const std::string inner = path.empty() ? option.name : path + "." + option.name;
    for (size_t i = 0; i < option.count(object); ++i) {
      const bool in_list = option.kind == Kind::kTableList;
      text += in_list ? fmt::format("\n[[{}]]\n", inner) : fmt::format("\n[{}]\n", inner);
      write_table(*option.table, option.at(object, i), inner, text);
    }
  }
}

Json json_value(const OptionValue& value) {
  if (const auto* b = value.as<bool>()) return *b;
  if (const auto* i = value.as<int64_t>()) return *i;
  if (const auto* x = value.as<double>()) return *x;
  if (const auto* s = value.as<std::string>()) return *s;
  if (const auto* list = value.as<OptionValue::List>()) {
    Json items = Json::array();
    for (const OptionValue& item : *list) items.push_back(json_value(item));
    return items;
  }
  return nullptr;
}

Json json_table(const TableSchema& table, const void* object) {
  Json result = Json::object();
  for (const OptionSchema& option : table.options) {
    if (option.kind == Kind::kValue) {
      result[option.name] = json_value(option.get(object));
    } else if (option.kind == Kind::kTableList) {
      Json items = Json::array();
      for (size_t i = 0; i < option.count(object); ++i) {
        items.push_back(json_table(*option.table, option.at(object, i)));
      }
      result[option.name] = std::move(items);
    } else if (option.count(object) == 0) {
      result[option.name] = nullptr;
    } else {
      result[option.name] = json_table(*option.table, option.at(object, 0));
    }
  }
  return result;
}

}  // namespace

std::vector<OptionLine> list_options(ConstOptionsRef options) {
  std::vector<OptionLine> lines;
  list_table(options.schema(), options.object(), options.schema().make().get(), "", lines);
  return lines;
}

std::string options_toml(ConstOptionsRef options) {
  std::string text;
  write_table(options.schema(), options.object(), "", text);
  return text;
}

std::string options_origin_text(ConstOptionsRef options, const OptionOrigins& origins,
                                bool only_changed) {
  struct Row {
    std::string setting, origin;
  };
  std::vector<Row> rows;
  size_t width = 0;
  for (const OptionLine& line : list_options(options)) {
    const auto found = origins.find(line.path);
    if (only_changed && found == origins.end() && line.is_default) continue;
    rows.push_back({line.path + " = " + value_text(line.value),
                    found == origins.end() ? "default" : found->second});
    width = std::max(width, std::min<size_t>(rows.back().setting.size(), 60));
  }
  std::string text;
  for (const Row& row : rows)
    text += fmt::format("{:<{}}   # {}\n", row.setting, width, row.origin);
  return text;
}

std::string options_json(ConstOptionsRef options) {
  return dump_json(json_table(options.schema(), options.object()));
}

uint64_t options_hash(ConstOptionsRef options) { return xxh3_64(options_json(options)); }

}  // namespace triptych
