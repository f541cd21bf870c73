// A small strict JSON reader (RFC 8259): no comments, no duplicate keys, no NaN, valid UTF-8, at most 32 levels.
// Integers that fit int64 stay exact; every other number is a double.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace rindle::json {

inline constexpr int kMaxDepth = 32;

struct Value;
struct Member;
using Array = std::vector<Value>;
using Object = std::vector<Member>;  // in the order of the text

struct Value {
    std::variant<std::monostate, bool, std::int64_t, double, std::string, Array, Object> data;

    template <class T>
    const T* get() const noexcept {
        return std::get_if<T>(&data);
    }
};

struct Member {
    std::string key;
    Value value;
};

const Value* find(const Object& object, std::string_view key) noexcept;

struct Error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// Throws Error, with the byte where it stopped.
Value parse(std::string_view text);

}  // namespace rindle::json
