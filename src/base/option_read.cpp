#include <algorithm>
#include <charconv>
#include <cstring>

#include "base/files.h"
#include "base/format.h"
#include "base/option_io.h"
#include "base/option_toml.h"
#include "base/suggest.h"

namespace triptych {
namespace {

using Kind = OptionSchema::Kind;
namespace fs = std::filesystem;

/// Every option's path without the numbers of list elements.
void collect_paths(const TableSchema& table, const std::string& prefix,
                   std::vector<std::string>& paths) {
  for (const OptionSchema& option : table.options) {
    paths.push_back(prefix + option.name);
    if (option.table != nullptr) collect_paths(*option.table, prefix + option.name + ".", paths);
  }
}

/// "; nearest: parallel.tensor", or what is known in that table.
std::string suggestion(const TableSchema& root, const TableSchema& table, const std::string& prefix,
                       std::string_view name) {
  std::vector<std::string> siblings;
  for (const OptionSchema& option : table.options) siblings.push_back(option.name);
  const std::string sibling = nearest_name(name, siblings);
  if (!sibling.empty()) return "; nearest: " + prefix + sibling;

  // The right name in the wrong table.
  std::vector<std::string> paths;
  collect_paths(root, "", paths);
  for (const std::string& path : paths) {
    const size_t dot = path.rfind('.');
    if (dot != std::string::npos && path.substr(dot + 1) == name) return "; nearest: " + path;
  }
  const std::string where = prefix.empty() ? "" : prefix.substr(0, prefix.size() - 1);
  return "; " + (where.empty() ? "" : where + " ") + "has " + join_names(siblings);
}

fs::path from_folder(const fs::path& folder, const std::string& text) {
  return text.empty() ? fs::path() : (folder / text).lexically_normal();
}

/// Relative paths in `value` become absolute.
void resolve_paths(const OptionType& type, const fs::path& folder, OptionValue& value) {
  switch (type.kind) {
    case OptionType::Kind::kPath:
      value.value = from_folder(folder, std::get<std::string>(value.value)).string();
      return;
    case OptionType::Kind::kList:
      for (OptionValue& item : std::get<OptionValue::List>(value.value)) {
        resolve_paths(type.items[0], folder, item);
      }
      return;
    case OptionType::Kind::kEither:
      for (const OptionType& item : type.items) {
        if (!value_problem(item, {}, value).empty()) continue;
        resolve_paths(item, folder, value);
        return;
      }
      return;
    default:
      return;
  }
}

class Reader {
 public:
  Reader(const TableSchema& root, std::string_view origin, const fs::path& folder,
         OptionOrigins& origins, Problems& problems)
      : root_(root),
        origin_(origin),
        folder_(folder.empty() ? fs::current_path() : folder),
        origins_(origins),
        problems_(problems) {}

  void read_table(const TableSchema& table, void* object, const std::string& prefix,
                  const OptionValue::Table& values) {
    for (const auto& [name, value] : values) {
      const OptionSchema* option = table.find(name);
      if (option == nullptr) {
        unknown(table, prefix, name, value.line);
      } else {
        read_option(*option, object, prefix + name, value);
      }
    }
  }

  void read_option(const OptionSchema& option, void* object, const std::string& path,
                   const OptionValue& value) {
    if (option.kind == Kind::kValue) {
      const std::string problem = value_problem(option.type, option.range, value);
      if (!problem.empty()) {
        problems_.add(place(value.line), ": ", path, problem[0] == '[' ? "" : " ", problem);
        return;
      }
      OptionValue resolved = value;
      resolve_paths(option.type, folder_, resolved);
      option.set(object, resolved);
      origins_[path] = place(value.line);
      return;
    }
    if (option.kind == Kind::kTableList) {
      read_list(option, object, path, value);
      return;
    }
    const auto* table = value.as<OptionValue::Table>();
    if (table == nullptr) {
      problems_.add(place(value.line), ": ", path, " is a table of options: write [", path, "]");
      return;
    }
    void* inner = option.append(object);
    origins_.try_emplace(path, place(value.line));
    read_table(*option.table, inner, path + ".", *table);
  }

  /// The rest of `a.b.c = value`: names still to be walked.
  void assign(const TableSchema& table, void* object, const std::string& prefix,
              std::span<const std::string> names, std::string_view text) {
    const OptionSchema* option = table.find(names[0]);
    if (option == nullptr) {
      unknown(table, prefix, names[0], 0);
      return;
    }
    const std::string path = prefix + names[0];
    names = names.subspan(1);
    if (names.empty()) {
      assign_text(*option, object, path, text);
    } else if (option->kind == Kind::kValue) {
      problems_.add(origin_, ": ", path, " is not a table, so ", path, ".", names[0],
                    " is not an option");
    } else if (option->kind == Kind::kTableList) {
      assign_in_list(*option, object, path, names, text);
    } else {
      assign(*option->table, option->append(object), path + ".", names, text);
    }
  }

 private:
  std::string place(int line) const {
    return line > 0 ? fmt::format("{}:{}", origin_, line) : std::string(origin_);
  }

  void unknown(const TableSchema& table, const std::string& prefix, const std::string& name,
               int line) {
    problems_.add(place(line), ": ", prefix, name, " is not an option",
                  suggestion(root_, table, prefix, name));
  }

  void read_list(const OptionSchema& option, void* object, const std::string& path,
                 const OptionValue& value) {
    const auto* list = value.as<OptionValue::List>();
    const bool tables = list != nullptr && std::ranges::all_of(*list, [](const OptionValue& item) {
                          return item.as<OptionValue::Table>() != nullptr;
                        });
    if (!tables) {
      problems_.add(place(value.line), ": ", path, " is a list of tables: write [[", path, "]]");
      return;
    }
    option.clear(object);
    const std::string all = path + "[";
    std::erase_if(origins_, [&](const auto& entry) { return entry.first.starts_with(all); });
    for (size_t i = 0; i < list->size(); ++i) {
      const std::string element = fmt::format("{}[{}]", path, i);
      origins_[element] = place((*list)[i].line);
      read_table(*option.table, option.append(object), element + ".",
                 std::get<OptionValue::Table>((*list)[i].value));
    }
  }

  void assign_text(const OptionSchema& option, void* object, const std::string& path,
                   std::string_view text) {
    if (text.empty()) {
      problems_.add(origin_, ": ", path, " has no value; an empty string is written '\"\"'");
      return;
    }
    const bool text_type = option.kind == Kind::kValue && takes_text(option.type);
    const bool bare = text_type && std::strchr("\"'[{", text[0]) == nullptr;
    OptionValue value;
    try {
      value = parse_toml_value(text);
    } catch (const UsageError&) {
      // A word where a number or true or false belongs is told apart by its type further down.
      const bool list = option.kind == Kind::kValue && option.type.kind == OptionType::Kind::kList;
      if (!bare && (list || text_type || option.kind != Kind::kValue)) {
        problems_.add(origin_, ": ", path, "=", text, " is not a TOML value",
                      list ? "; lists are written '[\"a\", \"b\"]'" : "");
        return;
      }
      value.value = std::string(text);
    }
    // `--set output=2024` means the folder "2024".
    if (bare && !value_problem(option.type, option.range, value).empty()) {
      OptionValue word{std::string(text)};
      if (value_problem(option.type, option.range, word).empty()) value = word;
    }
    read_option(option, object, path, value);
  }

  void assign_in_list(const OptionSchema& option, void* object, const std::string& path,
                      std::span<const std::string> names, std::string_view text) {
    size_t index = 0;
    const std::string& number = names[0];
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), index);
    const size_t count = option.count(object);
    if (error != std::errc() || end != number.data() + number.size() || index > count) {
      problems_.add(origin_, ": ", path, ".", number, ": the tables of ", path,
                    " are numbered from 0; there ", count == 1 ? "is " : "are ", count);
      return;
    }
    if (names.size() < 2) {
      problems_.add(origin_, ": ", path, ".", number, " needs the name of an option after it");
      return;
    }
    void* element =
        index == count ? option.append(object) : const_cast<void*>(option.at(object, index));
    assign(*option.table, element, fmt::format("{}[{}].", path, index), names.subspan(1), text);
  }

  const TableSchema& root_;
  std::string_view origin_;
  fs::path folder_;
  OptionOrigins& origins_;
  Problems& problems_;
};

std::vector<std::string> split(std::string_view text, std::string_view separator) {
  std::vector<std::string> parts;
  for (;;) {
    const size_t at = text.find(separator);
    parts.emplace_back(text.substr(0, at));
    if (at == std::string_view::npos) return parts;
    text.remove_prefix(at + separator.size());
  }
}

}  // namespace

void read_options_text(OptionsRef options, std::string_view text, std::string_view origin,
                       const fs::path& folder, OptionOrigins& origins, Problems& problems) {
  OptionValue document;
  try {
    document = parse_toml(text, origin);
  } catch (const UsageError& error) {
    problems.add(error.what());
    return;
  }
  Reader(options.schema(), origin, folder, origins, problems)
      .read_table(options.schema(), options.object(), "",
                  std::get<OptionValue::Table>(document.value));
}

void read_options_file(OptionsRef options, const fs::path& file, OptionOrigins& origins,
                       Problems& problems) {
  std::string text;
  try {
    text = read_file(file, 16 << 20);
  } catch (const Error& error) {
    fail<UsageError>(error.what());
  }
  read_options_text(options, text, file.string(), fs::absolute(file).parent_path(), origins,
                    problems);
}

void read_option_assignment(OptionsRef options, std::string_view assignment, std::string_view place,
                            const fs::path& folder, OptionOrigins& origins, Problems& problems) {
  const size_t equals = assignment.find('=');
  if (equals == std::string_view::npos || equals == 0) {
    problems.add(place, ": '", assignment, "' is not of the form section.key=value");
    return;
  }
  const std::vector<std::string> names = split(assignment.substr(0, equals), ".");
  Reader(options.schema(), place, folder, origins, problems)
      .assign(options.schema(), options.object(), "", names, assignment.substr(equals + 1));
}

void read_options_environment(OptionsRef options, const char* const* environment,
                              const fs::path& folder, OptionOrigins& origins, Problems& problems) {
  constexpr std::string_view kPrefix = "TRIPTYCH_";
  for (; environment != nullptr && *environment != nullptr; ++environment) {
    const std::string_view entry = *environment;
    const size_t equals = entry.find('=');
    if (!entry.starts_with(kPrefix) || equals == std::string_view::npos) continue;
    const std::string_view variable = entry.substr(0, equals);
    std::string name(variable.substr(kPrefix.size()));
    std::ranges::transform(name, name.begin(), [](char c) {
      return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    });
    const std::vector<std::string> names = split(name, "__");
    const OptionSchema* option = options.schema().find(names[0]);
    const bool top_level = option != nullptr && option->kind == Kind::kValue;
    if (names.size() == 1 && !top_level) continue;
    Reader(options.schema(), variable, folder, origins, problems)
        .assign(options.schema(), options.object(), "", names, entry.substr(equals + 1));
  }
}

OptionOrigins read_options(OptionsRef options, const OptionSources& sources) {
  OptionOrigins origins;
  Problems problems;
  fs::path folder = fs::current_path();
  if (!sources.file.empty()) {
    read_options_file(options, sources.file, origins, problems);
    folder = fs::absolute(sources.file).parent_path();
  }
  read_options_environment(options, sources.environment, folder, origins, problems);
  for (const std::string& assignment : sources.assignments) {
    read_option_assignment(options, assignment, "--set", folder, origins, problems);
  }
  problems.throw_if_any();
  return origins;
}

}  // namespace triptych
