#include "file/tensors.h"

#include <algorithm>

#include "file/error.h"

namespace rindle {
namespace {

constexpr std::size_t kMaxHeader = 100'000'000;       // as in safetensors itself
constexpr std::int64_t kMaxElements = (1LL << 31) - 1;  // of one tensor

std::size_t dtype_bytes(const Field& dtype) {
    const std::string& name = dtype.text();
    if (name == "U8") return 1;
    if (name == "I16") return 2;
    if (name == "I32" || name == "F32") return 4;
    if (name == "I64") return 8;
    dtype.fail("is \"" + name.substr(0, kMaxName) + "\", must be U8, I16, I32, I64 or F32");
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
    std::string text = "[";
    for (std::int64_t n : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(n);
    return text + "]";
}

[[noreturn]] void fail(const std::string& what) { throw Error(RINDLE_INVALID_FILE, what); }

json::Value parse_header(std::span<const std::byte> file) {
    if (file.size() < 8) fail("file: shorter than the 8 bytes of a header length");
    const auto length = read_little<std::uint64_t>(file.data());
    if (length > kMaxHeader || length > file.size() - 8)
        fail("file: header length " + std::to_string(length) + " does not fit a file of " +
             std::to_string(file.size()) + " bytes: it is truncated or not a .rindle file");
    const std::string_view text(reinterpret_cast<const char*>(file.data() + 8), static_cast<std::size_t>(length));
    if (!text.starts_with('{')) fail("header: does not start with '{': not a .rindle file");
    return json::parse(text);
}

}  // namespace

Container::Container(std::span<const std::byte> file) {
    const json::Value value = parse_header(file);
    const std::size_t header = static_cast<std::size_t>(read_little<std::uint64_t>(file.data()));
    const std::span<const std::byte> data = file.subspan(8 + header);
    const Field root(value, "header");
    if (!root.has("__metadata__")) root.fail("has no \"__metadata__\": not a .rindle file");

    std::vector<const Tensor*> order;
    for (const auto& [name, entry] : root.members()) {
        if (name == "__metadata__") {
            entry.keys({"rindle"});
            document_ = entry["rindle"].text();
            continue;
        }
        entry.keys({"dtype", "shape", "data_offsets"});
        Tensor tensor;
        tensor.dtype = entry["dtype"].text();
        std::int64_t elements = 1;
        for (const Field& size : entry["shape"].items(1, 3)) {
            tensor.shape.push_back(size.integer(1, kMaxElements));
            if (tensor.shape.back() > kMaxElements / elements) entry["shape"].fail("2^31 elements or more");
            elements *= tensor.shape.back();
        }
        const auto offsets = entry["data_offsets"].items(2, 2);
        const auto size = static_cast<std::int64_t>(data.size());
        tensor.begin = static_cast<std::size_t>(offsets[0].integer(0, size));
        tensor.end = static_cast<std::size_t>(offsets[1].integer(static_cast<std::int64_t>(tensor.begin), size));
        const std::size_t bytes = static_cast<std::size_t>(elements) * dtype_bytes(entry["dtype"]);
        if (tensor.end - tensor.begin != bytes)
            entry["data_offsets"].fail("spans " + std::to_string(tensor.end - tensor.begin) + " bytes, but " +
                                       tensor.dtype + " " + shape_text(tensor.shape) + " has " +
                                       std::to_string(bytes));
        tensor.bytes = data.subspan(tensor.begin, bytes);
        order.push_back(&tensors_.emplace(name, std::move(tensor)).first->second);
    }

    std::sort(order.begin(), order.end(), [](const Tensor* a, const Tensor* b) { return a->begin < b->begin; });
    std::size_t end = 0;
    for (const Tensor* tensor : order) {
        if (tensor->begin != end)
            fail("header: a tensor begins at byte " + std::to_string(tensor->begin) + ", but the one before it ends at " +
                 std::to_string(end) + ": tensors must neither overlap nor leave holes");
        end = tensor->end;
    }
    if (end != data.size())
        fail("file: " + std::to_string(data.size() - end) + " bytes behind the last tensor");
}

Tensor& Container::find(const Field& field) {
    const auto found = tensors_.find(field.name());
    if (found == tensors_.end()) field.fail("names the tensor \"" + field.name() + "\", which the file does not have");
    found->second.used = true;
    return found->second;
}

std::span<const std::byte> Container::take(const Field& field, std::string_view dtype,
                                           std::vector<std::int64_t> shape) {
    const Tensor& tensor = find(field);
    if (tensor.dtype != dtype || tensor.shape != shape)
        field.fail("tensor \"" + field.name() + "\" is " + tensor.dtype + " " + shape_text(tensor.shape) + ", must be " +
                   std::string(dtype) + " " + shape_text(shape));
    return tensor.bytes;
}

const std::vector<std::int64_t>& Container::shape(const Field& field) { return find(field).shape; }

void Container::check_alone(const Field& field) {
    if (const auto found = tensors_.find(field.text()); found != tensors_.end() && found->second.used)
        field.fail("tensor \"" + found->first + "\" serves elsewhere too: a golden tensor stands alone");
}

void Container::keep_part(const std::vector<std::string>& parts, const std::string& name) {
    std::unordered_map<std::string, Tensor> own;
    for (auto& [full, tensor] : tensors_) {
        const std::size_t slash = full.find('/');
        const std::string part = full.substr(0, slash);
        if (slash == std::string::npos || std::find(parts.begin(), parts.end(), part) == parts.end())
            fail("header: tensor \"" + full + "\" has no part's name and a slash before its own");
        if (part == name) own.emplace(full.substr(slash + 1), std::move(tensor));
    }
    tensors_ = std::move(own);
}

void Container::refuse_unused() const {
    for (const auto& [name, tensor] : tensors_)
        if (!tensor.used) fail("header: tensor \"" + name + "\" is not named in the document");
}

}  // namespace rindle
