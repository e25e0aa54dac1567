#include "base/option_value.h"

#include <algorithm>
#include <cmath>

#include "base/format.h"
#include "base/suggest.h"

namespace triptych {
namespace {

using Kind = OptionType::Kind;

std::string join_with(const std::vector<std::string>& parts, std::string_view separator) {
  std::string text;
  for (const std::string& part : parts) {
    if (&part != &parts.front()) text += separator;
    text += part;
  }
  return text;
}

std::string plural(const OptionType& type) {
  switch (type.kind) {
    case Kind::kBool:
      return "truth values";
    case Kind::kInteger:
      return "integers";
    case Kind::kNumber:
      return "numbers";
    case Kind::kText:
      return "strings";
    case Kind::kPath:
      return "paths";
    case Kind::kChoice:
      return type_text(type);
    case Kind::kList:
      return fmt::format("lists of {}", plural(type.items[0]));
    case Kind::kEither:
      return fmt::format("({})", type_text(type));
  }
  return "";
}

std::string article(const OptionType& type) {
  switch (type.kind) {
    case Kind::kBool:
      return "true or false";
    case Kind::kInteger:
      return "an integer";
    case Kind::kNumber:
      return "a number";
    case Kind::kText:
      return "a string";
    case Kind::kPath:
      return "a path";
    case Kind::kChoice:
      return "one of " + join_names(type.choices, " or ");
    case Kind::kList:
      return (type.count > 0 ? fmt::format("a list of {} ", type.count) : "a list of ") +
             plural(type.items[0]);
    case Kind::kEither: {
      std::vector<std::string> parts;
      for (const OptionType& item : type.items) parts.push_back(article(item));
      return join_names(parts, " or ");
    }
  }
  return "";
}

std::string seen_text(const OptionValue& value) {
  if (value.as<bool>() != nullptr) return "a truth value";
  if (value.as<int64_t>() != nullptr) return "an integer";
  if (value.as<double>() != nullptr) return "a number";
  if (value.as<std::string>() != nullptr) return "a string";
  if (value.as<OptionValue::List>() != nullptr) return "a list";
  if (value.as<OptionValue::Table>() != nullptr) return "a table";
  if (value.as<OptionValue::Other>() != nullptr) return "a date or time";
  return "nothing";
}

std::string number_text(double x) {
  if (std::isnan(x)) return "nan";
  if (std::isinf(x)) return x > 0 ? "inf" : "-inf";
  std::string text = fmt::format("{}", x);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

/// "= value", cut when it is long; tables and dates by their kind alone.
std::string shown(const OptionValue& value) {
  if (value.as<OptionValue::Table>() != nullptr || value.as<OptionValue::Other>() != nullptr) {
    return "";
  }
  std::string text = value_text(value);
  if (text.size() > 60) {
    size_t cut = 57;
    while (cut > 0 && (static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80) --cut;
    text = text.substr(0, cut) + "...";
  }
  return fmt::format("= {} ", text);
}

std::string wrong_type(const OptionType& type, const OptionValue& value) {
  const auto* table = value.as<OptionValue::Table>();
  if (type.kind == Kind::kInteger && value.as<double>() != nullptr) {
    return shown(value) + "has a fraction or an exponent; an integer is expected, e.g. 1000";
  }
  return shown(value) + (table != nullptr ? "is a table; " : "is " + seen_text(value) + "; ") +
         article(type) + " is expected";
}

std::string number_problem(const OptionRange& range, const OptionValue& value, double x) {
  const bool inside = (range.without_least ? x > range.least : x >= range.least) &&
                      (range.without_greatest ? x < range.greatest : x <= range.greatest);
  if (std::isfinite(x) && inside) return "";
  const std::string allowed = range_text(range);
  return shown(value) + "is out of range; allowed: " + (allowed.empty() ? "finite" : allowed);
}

std::string choice_problem(const OptionType& type, const OptionValue& value) {
  const auto* text = value.as<std::string>();
  if (text == nullptr) return wrong_type(type, value);
  if (std::ranges::find(type.choices, *text) != type.choices.end()) return "";
  const std::string nearest = nearest_name(*text, type.choices);
  return shown(value) + "is not a choice; allowed: " + join_names(type.choices, ", ") +
         (nearest.empty() ? "" : "; nearest: " + nearest);
}

std::string list_problem(const OptionType& type, const OptionRange& range,
                         const OptionValue& value) {
  const auto* list = value.as<OptionValue::List>();
  if (list == nullptr) return wrong_type(type, value);
  if (type.count > 0 && list->size() != type.count) {
    return fmt::format("{}has {} elements; {} is expected", shown(value), list->size(),
                       article(type));
  }
  for (size_t i = 0; i < list->size(); ++i) {
    const std::string problem = value_problem(type.items[0], range, (*list)[i]);
    if (!problem.empty()) return fmt::format("[{}] {}", i, problem);
  }
  return "";
}

std::string either_problem(const OptionType& type, const OptionRange& range,
                           const OptionValue& value) {
  // The alternative of the value's own shape gives the more useful message.
  std::string last;
  for (const OptionType& item : type.items) {
    const std::string problem = value_problem(item, range, value);
    if (problem.empty()) return "";
    if (problem.find(" is expected") == std::string::npos) last = problem;
  }
  return last.empty() ? wrong_type(type, value) : last;
}

}  // namespace

std::string type_text(const OptionType& type) {
  switch (type.kind) {
    case Kind::kBool:
      return "true | false";
    case Kind::kInteger:
      return "integer";
    case Kind::kNumber:
      return "number";
    case Kind::kText:
      return "string";
    case Kind::kPath:
      return "path";
    case Kind::kChoice:
      return join_with(type.choices, " | ");
    case Kind::kList:
      return (type.count > 0 ? fmt::format("list of {} ", type.count) : "list of ") +
             plural(type.items[0]);
    case Kind::kEither: {
      std::vector<std::string> parts;
      for (const OptionType& item : type.items) parts.push_back(type_text(item));
      return join_with(parts, " | ");
    }
  }
  return "";
}

std::string range_text(const OptionRange& range) {
  const bool low = range.least > -1e300, high = range.greatest < 1e300;
  const auto bound = [](double x) { return fmt::format("{}", x); };
  if (low && high) {
    return fmt::format("{}{} to {}{}", bound(range.least), range.without_least ? " (excluded)" : "",
                       bound(range.greatest), range.without_greatest ? " (excluded)" : "");
  }
  if (low) return (range.without_least ? "above " : "at least ") + bound(range.least);
  if (high) return (range.without_greatest ? "below " : "at most ") + bound(range.greatest);
  return "";
}

std::string toml_quoted(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    switch (c) {
      case '"':
        quoted += "\\\"";
        break;
      case '\\':
        quoted += "\\\\";
        break;
      case '\n':
        quoted += "\\n";
        break;
      case '\t':
        quoted += "\\t";
        break;
      case '\r':
        quoted += "\\r";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
          quoted += fmt::format("\\u{:04X}", static_cast<unsigned>(static_cast<unsigned char>(c)));
        } else {
          quoted += c;
        }
    }
  }
  return quoted + '"';
}

std::string value_text(const OptionValue& value) {
  if (const auto* b = value.as<bool>()) return *b ? "true" : "false";
  if (const auto* i = value.as<int64_t>()) return fmt::format("{}", *i);
  if (const auto* x = value.as<double>()) return number_text(*x);
  if (const auto* s = value.as<std::string>()) return toml_quoted(*s);
  if (const auto* list = value.as<OptionValue::List>()) {
    std::vector<std::string> parts;
    for (const OptionValue& item : *list) parts.push_back(value_text(item));
    return fmt::format("[{}]", join_with(parts, ", "));
  }
  if (const auto* table = value.as<OptionValue::Table>()) {
    std::vector<std::string> parts;
    for (const auto& [key, item] : *table) parts.push_back(key + " = " + value_text(item));
    return fmt::format("{{{}}}", join_with(parts, ", "));
  }
  return "unset";
}

std::string value_problem(const OptionType& type, const OptionRange& range,
                          const OptionValue& value) {
  switch (type.kind) {
    case Kind::kBool:
      return value.as<bool>() != nullptr ? "" : wrong_type(type, value);
    case Kind::kText:
    case Kind::kPath: {
      const auto* text = value.as<std::string>();
      if (text == nullptr) return wrong_type(type, value);
      const bool has_nul = text->find('\0') != std::string::npos;
      return has_nul ? shown(value) + "holds a zero byte" : "";
    }
    case Kind::kInteger:
      if (const auto* i = value.as<int64_t>()) {
        return number_problem(range, value, static_cast<double>(*i));
      }
      return wrong_type(type, value);
    case Kind::kNumber:
      if (const auto* i = value.as<int64_t>()) {
        return number_problem(range, value, static_cast<double>(*i));
      }
      if (const auto* x = value.as<double>()) return number_problem(range, value, *x);
      return wrong_type(type, value);
    case Kind::kChoice:
      return choice_problem(type, value);
    case Kind::kList:
      return list_problem(type, range, value);
    case Kind::kEither:
      return either_problem(type, range, value);
  }
  return "";
}

bool takes_text(const OptionType& type) {
  if (type.kind == Kind::kEither) return std::ranges::any_of(type.items, takes_text);
  return type.kind == Kind::kText || type.kind == Kind::kPath || type.kind == Kind::kChoice;
}

}  // namespace triptych
