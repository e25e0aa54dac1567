#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "base/option_schema.h"

// Options are declared once. A struct lists its members:
//
//   enum class Precision { kFp32, kBf16 };
//   constexpr std::array<std::string_view, 2> option_names(Precision) { return {"fp32", "bf16"}; }
//
//   struct ModelOptions {
//     std::filesystem::path path;
//     Precision precision = Precision::kBf16;
//     static constexpr auto fields() {
//       using O = ModelOptions;
//       return std::tuple(field("path", &O::path, "Hub folder."),
//                         field("precision", &O::precision, "Compute dtype."));
//     }
//   };
//
// Members may be bool, int64_t, double, std::string, std::filesystem::path (relative ones are
// resolved against the run file's folder), enums with option_names(), vectors and arrays of those,
// std::optional of those (unset unless given), std::variant of those (the first alternative that
// fits), structs with fields() (a table), std::optional of such (a table that may be absent) and
// std::vector of such (an array of tables). option_io.h reads and writes them.

namespace triptych {

constexpr OptionRange at_least(double least) { return {.least = least}; }
constexpr OptionRange at_most(double greatest) { return {.greatest = greatest}; }
constexpr OptionRange above(double least) { return {.least = least, .without_least = true}; }
constexpr OptionRange between(double least, double greatest) {
  return {.least = least, .greatest = greatest};
}
/// From `least` to `greatest`, which is itself out.
constexpr OptionRange between_below(double least, double greatest) {
  return {.least = least, .greatest = greatest, .without_greatest = true};
}

template <class O, class T>
struct Field {
  std::string_view name;
  T O::* member;
  OptionRange range;
  std::string_view help;
};

template <class O, class T>
constexpr Field<O, T> field(std::string_view name, T O::* member, std::string_view help) {
  return {name, member, {}, help};
}

template <class O, class T>
constexpr Field<O, T> field(std::string_view name, T O::* member, OptionRange range,
                            std::string_view help) {
  return {name, member, range, help};
}

template <class T>
concept OptionEnum = std::is_enum_v<T> && requires(T value) { option_names(value); };

template <class T>
concept OptionStruct = requires { T::fields(); };

/// An enumerator's name in run files and messages.
template <OptionEnum T>
constexpr std::string_view name_of(T value) {
  return option_names(value)[static_cast<size_t>(value)];
}

namespace detail {

template <class T>
struct Codec;  // describe(), to_value(), from_value() of one member type

template <>
struct Codec<bool> {
  static OptionType describe() { return {.kind = OptionType::Kind::kBool}; }
  static OptionValue to_value(bool x) { return {x}; }
  static bool from_value(const OptionValue& v) { return std::get<bool>(v.value); }
};

template <>
struct Codec<int64_t> {
  static OptionType describe() { return {.kind = OptionType::Kind::kInteger}; }
  static OptionValue to_value(int64_t x) { return {x}; }
  static int64_t from_value(const OptionValue& v) { return std::get<int64_t>(v.value); }
};

template <>
struct Codec<double> {
  static OptionType describe() { return {.kind = OptionType::Kind::kNumber}; }
  static OptionValue to_value(double x) { return {x}; }
  static double from_value(const OptionValue& v) {
    if (const auto* i = v.as<int64_t>()) return static_cast<double>(*i);
    return std::get<double>(v.value);
  }
};

template <>
struct Codec<std::string> {
  static OptionType describe() { return {.kind = OptionType::Kind::kText}; }
  static OptionValue to_value(const std::string& x) { return {x}; }
  static std::string from_value(const OptionValue& v) { return std::get<std::string>(v.value); }
};

template <>
struct Codec<std::filesystem::path> {
  static OptionType describe() { return {.kind = OptionType::Kind::kPath}; }
  static OptionValue to_value(const std::filesystem::path& x) { return {x.string()}; }
  static std::filesystem::path from_value(const OptionValue& v) {
    return std::get<std::string>(v.value);
  }
};

template <OptionEnum T>
struct Codec<T> {
  static OptionType describe() {
    OptionType type{.kind = OptionType::Kind::kChoice};
    for (const std::string_view name : option_names(T{})) type.choices.emplace_back(name);
    return type;
  }
  static OptionValue to_value(T x) { return {std::string(name_of(x))}; }
  static T from_value(const OptionValue& v) {
    const auto names = option_names(T{});
    size_t i = 0;
    while (names[i] != std::get<std::string>(v.value)) ++i;  // checked before: it is one of them
    return static_cast<T>(i);
  }
};

template <class T>
struct Codec<std::vector<T>> {
  static OptionType describe() {
    return {.kind = OptionType::Kind::kList, .items = {Codec<T>::describe()}};
  }
  static OptionValue to_value(const std::vector<T>& x) {
    OptionValue::List list;
    for (const auto& item : x) list.push_back(Codec<T>::to_value(item));
    return {std::move(list)};
  }
  static std::vector<T> from_value(const OptionValue& v) {
    std::vector<T> x;
    for (const auto& item : std::get<OptionValue::List>(v.value)) {
      x.push_back(Codec<T>::from_value(item));
    }
    return x;
  }
};

template <class T, size_t N>
struct Codec<std::array<T, N>> {
  static OptionType describe() {
    return {.kind = OptionType::Kind::kList, .items = {Codec<T>::describe()}, .count = N};
  }
  static OptionValue to_value(const std::array<T, N>& x) {
    return Codec<std::vector<T>>::to_value(std::vector<T>(x.begin(), x.end()));
  }
  static std::array<T, N> from_value(const OptionValue& v) {
    std::array<T, N> x{};
    const auto& list = std::get<OptionValue::List>(v.value);
    for (size_t i = 0; i < N; ++i) x[i] = Codec<T>::from_value(list[i]);
    return x;
  }
};

template <class T>
struct Codec<std::optional<T>> {
  static OptionType describe() {
    OptionType type = Codec<T>::describe();
    type.can_be_unset = true;
    return type;
  }
  static OptionValue to_value(const std::optional<T>& x) {
    return x ? Codec<T>::to_value(*x) : OptionValue{};
  }
  static std::optional<T> from_value(const OptionValue& v) { return Codec<T>::from_value(v); }
};

template <class... T>
struct Codec<std::variant<T...>> {
  static OptionType describe() {
    return {.kind = OptionType::Kind::kEither, .items = {Codec<T>::describe()...}};
  }
  static OptionValue to_value(const std::variant<T...>& x) {
    return std::visit([](const auto& y) { return Codec<std::decay_t<decltype(y)>>::to_value(y); },
                      x);
  }
  static std::variant<T...> from_value(const OptionValue& v) {
    std::variant<T...> x;
    bool done = false;
    const auto attempt = [&]<class U>(std::type_identity<U>) {
      if (done || !value_problem(Codec<U>::describe(), {}, v).empty()) return;
      x = Codec<U>::from_value(v);
      done = true;
    };
    (attempt(std::type_identity<T>{}), ...);
    return x;
  }
};

}  // namespace detail

/// The rows of T with their types erased; built once.
template <OptionStruct T>
const TableSchema& schema_of();

namespace detail {

template <class T>
struct TableOf {
  static constexpr bool is_table = OptionStruct<T>;
  static constexpr auto kind = OptionSchema::Kind::kTable;
  using Struct = T;
};
template <OptionStruct T>
struct TableOf<std::optional<T>> {
  static constexpr bool is_table = true;
  static constexpr auto kind = OptionSchema::Kind::kOptionalTable;
  using Struct = T;
};
template <OptionStruct T>
struct TableOf<std::vector<T>> {
  static constexpr bool is_table = true;
  static constexpr auto kind = OptionSchema::Kind::kTableList;
  using Struct = T;
};

template <class O, class T>
OptionSchema describe_field(const Field<O, T>& f) {
  OptionSchema row;
  row.name = f.name;
  row.help = f.help;
  row.range = f.range;
  const auto member = f.member;
  if constexpr (TableOf<T>::is_table) {
    using Kind = OptionSchema::Kind;
    constexpr Kind kind = TableOf<T>::kind;
    row.kind = kind;
    row.table = &schema_of<typename TableOf<T>::Struct>();
    row.count = [member](const void* object) -> size_t {
      const T& x = static_cast<const O*>(object)->*member;
      if constexpr (kind == Kind::kTable) return (static_cast<void>(x), 1);
      if constexpr (kind == Kind::kOptionalTable) return x.has_value() ? 1 : 0;
      if constexpr (kind == Kind::kTableList) return x.size();
    };
    row.at = [member](const void* object, size_t index) -> const void* {
      const T& x = static_cast<const O*>(object)->*member;
      if constexpr (kind == Kind::kTable) return (static_cast<void>(index), &x);
      if constexpr (kind == Kind::kOptionalTable) return (static_cast<void>(index), &*x);
      if constexpr (kind == Kind::kTableList) return &x[index];
    };
    row.append = [member](void* object) -> void* {
      T& x = static_cast<O*>(object)->*member;
      if constexpr (kind == Kind::kTable) return &x;
      if constexpr (kind == Kind::kOptionalTable) return x ? &*x : &x.emplace();
      if constexpr (kind == Kind::kTableList) return &x.emplace_back();
    };
    row.clear = [member](void* object) {
      T& x = static_cast<O*>(object)->*member;
      if constexpr (kind == Kind::kOptionalTable) x.reset();
      if constexpr (kind == Kind::kTableList) x.clear();
      static_cast<void>(x);
    };
  } else {
    row.kind = OptionSchema::Kind::kValue;
    row.type = Codec<T>::describe();
    row.get = [member](const void* object) {
      return Codec<T>::to_value(static_cast<const O*>(object)->*member);
    };
    row.set = [member](void* object, const OptionValue& value) {
      static_cast<O*>(object)->*member = Codec<T>::from_value(value);
    };
  }
  return row;
}

}  // namespace detail

template <OptionStruct T>
const TableSchema& schema_of() {
  static const TableSchema schema = [] {
    TableSchema s;
    std::apply([&](const auto&... f) { (s.options.push_back(detail::describe_field(f)), ...); },
               T::fields());
    s.make = [] { return std::static_pointer_cast<void>(std::make_shared<T>()); };
    return s;
  }();
  return schema;
}

/// A struct of options and its schema, for the functions of option_io.h. Borrows the struct.
class OptionsRef {
 public:
  template <OptionStruct T>
  OptionsRef(T& options) : schema_(&schema_of<T>()), object_(&options) {}  // NOLINT: implicit
  OptionsRef(const TableSchema& schema, void* object) : schema_(&schema), object_(object) {}
  const TableSchema& schema() const { return *schema_; }
  void* object() const { return object_; }

 private:
  const TableSchema* schema_;
  void* object_;
};

class ConstOptionsRef {
 public:
  template <OptionStruct T>
  ConstOptionsRef(const T& options)  // NOLINT: implicit
      : schema_(&schema_of<T>()), object_(&options) {}
  ConstOptionsRef(const OptionsRef& other)  // NOLINT: implicit
      : schema_(&other.schema()), object_(other.object()) {}
  ConstOptionsRef(const TableSchema& schema, const void* object)
      : schema_(&schema), object_(object) {}
  const TableSchema& schema() const { return *schema_; }
  const void* object() const { return object_; }

 private:
  const TableSchema* schema_;
  const void* object_;
};

}  // namespace triptych
