#include "file/json.h"

#include <charconv>
#include <cmath>
#include <unordered_set>

namespace rindle::json {
namespace {

class Parser {
  public:
    explicit Parser(std::string_view text) : text_(text) {}

    Value document() {
        Value value = this->value(0);
        skip_space();
        if (at_ != text_.size()) fail("text after the end");
        return value;
    }

  private:
    [[noreturn]] void fail(const std::string& what) const {
        throw Error("JSON: " + what + " at byte " + std::to_string(at_));
    }

    bool more() const { return at_ < text_.size(); }
    char peek() const { return more() ? text_[at_] : '\0'; }

    void skip_space() {
        while (more() && (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r')) ++at_;
    }

    bool take(char c) {
        if (!more() || text_[at_] != c) return false;
        ++at_;
        return true;
    }

    void expect(char c) {
        if (!take(c)) fail(std::string("expected '") + c + "'");
    }

    Value value(int depth) {
        skip_space();
        switch (peek()) {
            case '{': return {object(depth + 1)};
            case '[': return {array(depth + 1)};
            case '"': return {string()};
            case 't': return literal("true"), Value{true};
            case 'f': return literal("false"), Value{false};
            case 'n': return literal("null"), Value{};
            default: return number();
        }
    }

    void literal(std::string_view word) {
        if (text_.substr(at_, word.size()) != word) fail("unknown word");
        at_ += word.size();
    }

    Object object(int depth) {
        if (depth > kMaxDepth) fail("more than 32 levels");
        Object members;
        std::unordered_set<std::string> keys;
        expect('{');
        skip_space();
        if (take('}')) return members;
        do {
            skip_space();
            if (peek() != '"') fail("expected a key");
            std::string key = string();
            if (!keys.insert(key).second) fail("duplicate key \"" + key + "\"");
            skip_space();
            expect(':');
            members.push_back({std::move(key), value(depth)});
            skip_space();
        } while (take(','));
        expect('}');
        return members;
    }

    Array array(int depth) {
        if (depth > kMaxDepth) fail("more than 32 levels");
        Array items;
        expect('[');
        skip_space();
        if (take(']')) return items;
        do {
            items.push_back(value(depth));
            skip_space();
        } while (take(','));
        expect(']');
        return items;
    }

    Value number() {
        const std::size_t begin = at_;
        const auto digits = [this] {
            const std::size_t first = at_;
            while (peek() >= '0' && peek() <= '9') ++at_;
            return at_ - first;
        };
        take('-');
        const bool leading_zero = peek() == '0';
        const std::size_t whole = digits();
        if (whole == 0) fail("expected a value");
        if (leading_zero && whole > 1) fail("number with a leading zero");
        bool integer = true;
        if (take('.')) {
            integer = false;
            if (digits() == 0) fail("number without digits after its point");
        }
        if (take('e') || take('E')) {
            integer = false;
            if (!take('+')) take('-');
            if (digits() == 0) fail("number without digits in its exponent");
        }
        const char *first = text_.data() + begin, *last = text_.data() + at_;
        std::int64_t i = 0;
        if (integer && std::from_chars(first, last, i).ec == std::errc{}) return {i};
        double d = 0;
        if (std::from_chars(first, last, d).ec != std::errc{}) fail("number beyond the range of float64");
        return {d};
    }

    std::string string() {
        std::string out;
        expect('"');
        while (true) {
            if (!more()) fail("string without an end");
            const char c = text_[at_];
            if (c == '"') return ++at_, out;
            if (static_cast<unsigned char>(c) < 0x20) fail("control character in a string");
            if (c == '\\')
                ++at_, escape(out);
            else if (static_cast<unsigned char>(c) < 0x80)
                out += c, ++at_;
            else
                utf8(out);
        }
    }

    void escape(std::string& out) {
        if (!more()) fail("string without an end");
        switch (text_[at_++]) {
            case '"': out += '"'; return;
            case '\\': out += '\\'; return;
            case '/': out += '/'; return;
            case 'b': out += '\b'; return;
            case 'f': out += '\f'; return;
            case 'n': out += '\n'; return;
            case 'r': out += '\r'; return;
            case 't': out += '\t'; return;
            case 'u': break;
            default: fail("unknown escape");
        }
        std::uint32_t point = hex4();
        if (point >= 0xDC00 && point < 0xE000) fail("lone surrogate");
        if (point >= 0xD800 && point < 0xDC00) {
            if (!take('\\') || !take('u')) fail("lone surrogate");
            const std::uint32_t low = hex4();
            if (low < 0xDC00 || low >= 0xE000) fail("lone surrogate");
            point = 0x10000 + ((point - 0xD800) << 10) + (low - 0xDC00);
        }
        const auto byte = [&out](std::uint32_t b) { out += static_cast<char>(static_cast<unsigned char>(b)); };
        if (point < 0x80) {
            byte(point);
        } else if (point < 0x800) {
            byte(0xC0 | point >> 6), byte(0x80 | (point & 63));
        } else if (point < 0x10000) {
            byte(0xE0 | point >> 12), byte(0x80 | (point >> 6 & 63)), byte(0x80 | (point & 63));
        } else {
            byte(0xF0 | point >> 18), byte(0x80 | (point >> 12 & 63)), byte(0x80 | (point >> 6 & 63)),
                byte(0x80 | (point & 63));
        }
    }

    std::uint32_t hex4() {
        std::uint32_t v = 0;
        const char* first = text_.data() + at_;
        if (text_.size() - at_ < 4 || std::from_chars(first, first + 4, v, 16).ptr != first + 4) fail("bad \\u escape");
        at_ += 4;
        return v;
    }

    // One character of two to four bytes, checked: no stray or missing bytes, no longer form than needed, no
    // surrogate, nothing beyond U+10FFFF.
    void utf8(std::string& out) {
        const auto lead = static_cast<unsigned char>(text_[at_]);
        const std::size_t length = lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
        if (length == 0 || text_.size() - at_ < length) fail("invalid UTF-8");
        for (std::size_t i = 1; i < length; ++i)
            if ((static_cast<unsigned char>(text_[at_ + i]) & 0xC0) != 0x80) fail("invalid UTF-8");
        const auto second = static_cast<unsigned char>(text_[at_ + 1]);
        if ((lead == 0xE0 && second < 0xA0) || (lead == 0xED && second > 0x9F) || (lead == 0xF0 && second < 0x90) ||
            (lead == 0xF4 && second > 0x8F))
            fail("invalid UTF-8");
        out.append(text_, at_, length);
        at_ += length;
    }

    std::string_view text_;
    std::size_t at_ = 0;
};

}  // namespace

const Value* find(const Object& object, std::string_view key) noexcept {
    for (const Member& member : object)
        if (member.key == key) return &member.value;
    return nullptr;
}

Value parse(std::string_view text) { return Parser(text).document(); }

}  // namespace rindle::json
