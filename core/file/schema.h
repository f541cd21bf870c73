// Typed, checked access to a JSON document: every failure names the field, its value and what is allowed.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "file/json.h"

namespace rindle {

inline constexpr std::size_t kMaxName = 256;  // bytes

// A value and where it stands. The value must outlive it.
class Field {
  public:
    Field(const json::Value& value, std::string where) : value_(&value), where_(std::move(where)) {}

    const std::string& where() const { return where_; }
    [[noreturn]] void fail(const std::string& what) const;

    // Objects. `keys` refuses missing and unknown ones.
    void check_object() const { object(); }
    void keys(std::initializer_list<std::string_view> required,
              std::initializer_list<std::string_view> optional = {}) const;
    bool has(std::string_view key) const;
    Field operator[](std::string_view key) const;
    std::vector<std::pair<std::string, Field>> members() const;  // names are checked

    // Arrays
    bool is_array() const;
    std::vector<Field> items(std::size_t least, std::size_t most) const;

    // Scalars
    std::int64_t integer(std::int64_t least, std::int64_t most) const;
    bool is_integer() const;
    double number() const;  // finite
    bool boolean() const;
    const std::string& text() const;
    const std::string& name() const;  // text of at most kMaxName bytes

  private:
    const json::Object& object() const;

    const json::Value* value_;
    std::string where_;
};

}  // namespace rindle
