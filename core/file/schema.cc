#include "file/schema.h"

#include <algorithm>
#include <cmath>

#include "file/error.h"

namespace rindle {

void Field::fail(const std::string& what) const {
    throw Error(RINDLE_INVALID_FILE, (where_.empty() ? "document" : where_) + ": " + what);
}

const json::Object& Field::object() const {
    const auto* object = value_->get<json::Object>();
    if (!object) fail("must be an object");
    return *object;
}

void Field::keys(std::initializer_list<std::string_view> required,
                 std::initializer_list<std::string_view> optional) const {
    const auto among = [](std::initializer_list<std::string_view> list, std::string_view key) {
        return std::find(list.begin(), list.end(), key) != list.end();
    };
    for (const json::Member& member : object())
        if (!among(required, member.key) && !among(optional, member.key))
            fail("unknown key \"" + member.key.substr(0, kMaxName) + "\"");
    for (std::string_view key : required)
        if (!has(key)) fail("key \"" + std::string(key) + "\" is missing");
}

bool Field::has(std::string_view key) const { return json::find(object(), key) != nullptr; }

Field Field::operator[](std::string_view key) const {
    const json::Value* value = json::find(object(), key);
    if (!value) fail("key \"" + std::string(key) + "\" is missing");
    return {*value, where_.empty() ? std::string(key) : where_ + "." + std::string(key)};
}

std::vector<std::pair<std::string, Field>> Field::members() const {
    std::vector<std::pair<std::string, Field>> members;
    for (const json::Member& member : object()) {
        if (member.key.empty() || member.key.size() > kMaxName) fail("a name must have 1..256 bytes");
        members.emplace_back(member.key, Field{member.value, where_ + "." + member.key});
    }
    return members;
}

bool Field::is_array() const { return value_->get<json::Array>() != nullptr; }

std::vector<Field> Field::items(std::size_t least, std::size_t most) const {
    const auto* array = value_->get<json::Array>();
    if (!array) fail("must be an array");
    if (array->size() < least || array->size() > most)
        fail("has " + std::to_string(array->size()) + " items, must have " +
             (least == most ? std::to_string(least) : std::to_string(least) + " to " + std::to_string(most)));
    std::vector<Field> items;
    for (const json::Value& value : *array)
        items.emplace_back(value, where_ + "[" + std::to_string(items.size()) + "]");
    return items;
}

bool Field::is_integer() const { return value_->get<std::int64_t>() != nullptr; }

std::int64_t Field::integer(std::int64_t least, std::int64_t most) const {
    const auto* integer = value_->get<std::int64_t>();
    if (!integer) fail("must be an integer");
    if (*integer < least || *integer > most)
        fail("is " + std::to_string(*integer) + ", must be " + std::to_string(least) + ".." + std::to_string(most));
    return *integer;
}

double Field::number() const {
    if (const auto* integer = value_->get<std::int64_t>()) return static_cast<double>(*integer);
    const auto* number = value_->get<double>();
    if (!number || !std::isfinite(*number)) fail("must be a finite number");
    return *number;
}

bool Field::boolean() const {
    const auto* boolean = value_->get<bool>();
    if (!boolean) fail("must be true or false");
    return *boolean;
}

const std::string& Field::text() const {
    const auto* text = value_->get<std::string>();
    if (!text) fail("must be a string");
    return *text;
}

// Control characters, and those that change the direction of a text or show nothing: U+0000-001F, 007F-009F, 061C, 200B-200F,
// 2028-202E, 2060-2069 and FEFF, in UTF-8.
static bool has_hidden(const std::string& name) {
    const auto byte = [&](std::size_t i) { return i < name.size() ? static_cast<unsigned char>(name[i]) : 0u; };
    const auto between = [](unsigned value, unsigned low, unsigned high) { return low <= value && value <= high; };
    for (std::size_t i = 0; i < name.size(); ++i) {
        const unsigned a = byte(i), b = byte(i + 1), c = byte(i + 2);
        if (a < 0x20 || a == 0x7F || (a == 0xC2 && between(b, 0x80, 0x9F)) || (a == 0xD8 && b == 0x9C)) return true;
        if (a == 0xE2 && b == 0x80 && (between(c, 0x8B, 0x8F) || between(c, 0xA8, 0xAE))) return true;
        if ((a == 0xE2 && b == 0x81 && between(c, 0xA0, 0xA9)) || (a == 0xEF && b == 0xBB && c == 0xBF)) return true;
    }
    return false;
}

const std::string& Field::name() const {
    const std::string& name = text();
    if (name.empty() || name.size() > kMaxName) fail("must have 1..256 bytes");
    if (has_hidden(name)) fail("must have no control or hidden characters");
    return name;
}

}  // namespace rindle
