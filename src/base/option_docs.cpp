#include "base/option_docs.h"

#include <algorithm>

#include "base/format.h"
#include "base/json.h"

namespace triptych {
namespace {

using Kind = OptionSchema::Kind;

std::string section_name(const std::string& section, const OptionSchema& option) {
  return (section.empty() ? "" : section + ".") + option.name +
         (option.kind == Kind::kTableList ? "[]" : "");
}

void describe_table(const TableSchema& table, const void* defaults, const std::string& section,
                    std::vector<OptionDoc>& docs) {
  for (const OptionSchema& option : table.options) {
    if (option.kind != Kind::kValue) continue;
    const OptionValue preset = option.get(defaults);
    docs.push_back({.path = section.empty() ? option.name : section + "." + option.name,
                    .section = section,
                    .name = option.name,
                    .type = type_text(option.type),
                    .range = range_text(option.range),
                    .preset = preset.is_unset() ? "" : value_text(preset),
                    .help = option.help,
                    .choices = option.type.choices});
    OptionDoc& doc = docs.back();
    if (option.type.kind == OptionType::Kind::kBool) doc.choices = {"true", "false"};
    for (const OptionType& item : option.type.items) {
      if (option.type.kind == OptionType::Kind::kEither) {
        doc.choices.insert(doc.choices.end(), item.choices.begin(), item.choices.end());
      }
    }
  }
  for (const OptionSchema& option : table.options) {
    if (option.kind == Kind::kValue) continue;
    const std::shared_ptr<void> fresh = option.table->make();
    const void* inner = option.kind == Kind::kTable ? option.at(defaults, 0) : fresh.get();
    describe_table(*option.table, inner, section_name(section, option), docs);
  }
}

void section_help(const TableSchema& table, const std::string& section,
                  std::vector<std::pair<std::string, std::string>>& helps) {
  for (const OptionSchema& option : table.options) {
    if (option.kind == Kind::kValue) continue;
    std::string help = option.help;
    if (option.kind == Kind::kOptionalTable) help += " Absent by default.";
    if (option.kind == Kind::kTableList) help += " May be given several times.";
    helps.emplace_back(section_name(section, option), help);
    section_help(*option.table, section_name(section, option), helps);
  }
}

/// "[[data.train]]" for "data.train[]", "[train]" for "train".
std::string header(const std::string& section) {
  if (section.ends_with("[]")) return "[[" + section.substr(0, section.size() - 2) + "]]";
  return "[" + section + "]";
}

struct Section {
  std::string name, help;
  std::vector<OptionDoc> options;
};

std::vector<Section> sections(const TableSchema& schema) {
  std::vector<std::pair<std::string, std::string>> helps{{"", ""}};
  section_help(schema, "", helps);
  const std::vector<OptionDoc> docs = describe_options(schema);
  std::vector<Section> result;
  for (const auto& [name, help] : helps) {
    Section section{name, help, {}};
    for (const OptionDoc& doc : docs) {
      if (doc.section == name) section.options.push_back(doc);
    }
    if (!section.options.empty()) result.push_back(std::move(section));
  }
  return result;
}

Json type_schema(const OptionType& type, const OptionRange& range) {
  using TypeKind = OptionType::Kind;
  Json schema = Json::object();
  const auto bounds = [&] {
    if (range.least > -1e300) {
      schema[range.without_least ? "exclusiveMinimum" : "minimum"] = range.least;
    }
    if (range.greatest < 1e300) {
      schema[range.without_greatest ? "exclusiveMaximum" : "maximum"] = range.greatest;
    }
  };
  switch (type.kind) {
    case TypeKind::kBool:
      schema["type"] = "boolean";
      break;
    case TypeKind::kInteger:
      schema["type"] = "integer";
      bounds();
      break;
    case TypeKind::kNumber:
      schema["type"] = "number";
      bounds();
      break;
    case TypeKind::kText:
    case TypeKind::kPath:
      schema["type"] = "string";
      break;
    case TypeKind::kChoice:
      schema["enum"] = type.choices;
      break;
    case TypeKind::kList:
      schema["type"] = "array";
      schema["items"] = type_schema(type.items[0], range);
      if (type.count > 0) schema["minItems"] = schema["maxItems"] = type.count;
      break;
    case TypeKind::kEither:
      schema["anyOf"] = Json::array();
      for (const OptionType& item : type.items) schema["anyOf"].push_back(type_schema(item, range));
      break;
  }
  return schema;
}

Json default_json(const OptionValue& value) {
  if (const auto* list = value.as<OptionValue::List>()) {
    Json items = Json::array();
    for (const OptionValue& item : *list) items.push_back(default_json(item));
    return items;
  }
  if (const auto* b = value.as<bool>()) return *b;
  if (const auto* i = value.as<int64_t>()) return *i;
  if (const auto* x = value.as<double>()) return *x;
  if (const auto* s = value.as<std::string>()) return *s;
  return nullptr;
}

Json table_schema(const TableSchema& table, const void* defaults) {
  Json properties = Json::object();
  for (const OptionSchema& option : table.options) {
    Json entry;
    if (option.kind == Kind::kValue) {
      entry = type_schema(option.type, option.range);
      const OptionValue preset = option.get(defaults);
      if (!preset.is_unset()) entry["default"] = default_json(preset);
    } else {
      const std::shared_ptr<void> fresh = option.table->make();
      const void* inner = option.kind == Kind::kTable ? option.at(defaults, 0) : fresh.get();
      entry = table_schema(*option.table, inner);
      if (option.kind == Kind::kTableList) entry = {{"type", "array"}, {"items", entry}};
    }
    entry["description"] = option.help;
    properties[option.name] = std::move(entry);
  }
  return {{"type", "object"}, {"properties", properties}, {"additionalProperties", false}};
}

std::string markdown_cell(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (c == '|') result += '\\';
    result += c;
  }
  return result;
}

}  // namespace

std::vector<OptionDoc> describe_options(const TableSchema& schema) {
  std::vector<OptionDoc> docs;
  describe_table(schema, schema.make().get(), "", docs);
  return docs;
}

std::string options_text(const TableSchema& schema) {
  std::string text;
  for (const Section& section : sections(schema)) {
    if (!section.name.empty()) {
      text += fmt::format("\n{}\n", header(section.name));
      if (!section.help.empty()) text += fmt::format("  {}\n", section.help);
    }
    size_t width = 0;
    for (const OptionDoc& doc : section.options) width = std::max(width, doc.name.size());
    for (const OptionDoc& doc : section.options) {
      text += fmt::format("  {:<{}}  {}", doc.name, width, doc.type);
      if (!doc.range.empty()) text += ", " + doc.range;
      text += doc.preset.empty() ? "; not set" : "; default " + doc.preset;
      text += fmt::format("\n  {:<{}}  {}\n", "", width, doc.help);
    }
  }
  return text;
}

std::string options_json_schema(const TableSchema& schema, std::string_view title) {
  Json root{{"$schema", "https://json-schema.org/draft/2020-12/schema"}, {"title", title}};
  root.update(table_schema(schema, schema.make().get()));
  return dump_json(root, 2) + "\n";
}

std::string options_markdown(const TableSchema& schema) {
  std::string text;
  for (const Section& section : sections(schema)) {
    text += section.name.empty() ? "\n## Top level\n\n"
                                 : fmt::format("\n## `{}`\n\n", header(section.name));
    if (!section.help.empty()) text += section.help + "\n\n";
    text += "| key | type | default | meaning |\n| --- | --- | --- | --- |\n";
    for (const OptionDoc& doc : section.options) {
      const std::string range = doc.range.empty() ? "" : ", " + doc.range;
      const std::string preset = doc.preset.empty() ? "not set" : "`" + doc.preset + "`";
      text += fmt::format("| `{}` | {} | {} | {} |\n", doc.name, markdown_cell(doc.type + range),
                          markdown_cell(preset), markdown_cell(doc.help));
    }
  }
  return text;
}

}  // namespace triptych
