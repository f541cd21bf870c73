// The float nodes of the document.
#include <algorithm>

#include "file/error.h"
#include "file/reader.h"

namespace rindle {
namespace {

std::vector<float> read_finite(const Field& field, std::vector<std::int64_t> shape, Container& tensors) {
    auto numbers = tensors.take_numbers<float>(field, "F32", std::move(shape));
    check_finite(numbers, field);
    return numbers;
}

// The keys that this operation has besides those of every float node.
void check_keys(FloatKind kind, const Field& field) {
    switch (kind) {
        case FloatKind::softmax:
        case FloatKind::log_softmax: return field.keys({"name", "kind", "input", "op", "groups"});
        case FloatKind::layer_norm: return field.keys({"name", "kind", "input", "op", "epsilon"}, {"weight", "bias"});
        case FloatKind::linear: return field.keys({"name", "kind", "input", "op", "weight"}, {"bias"});
        default: return field.keys({"name", "kind", "input", "op"});
    }
}

}  // namespace

void check_finite(const std::vector<float>& numbers, const Field& field) {
    for (std::size_t i = 0; i < numbers.size(); ++i)
        if (!std::isfinite(numbers[i])) field.fail("element " + std::to_string(i) + " is not finite");
}

FloatKind read_float_kind(const Field& field) {
    const auto kind = std::find(kFloatNames.begin(), kFloatNames.end(), field.name());
    if (kind == kFloatNames.end()) field.fail("\"" + field.name() + "\" is not a float operation");
    return static_cast<FloatKind>(kind - kFloatNames.begin());
}

void read_float(Node& node, const Field& field, const std::vector<Source>& inputs, Container& tensors) {
    FloatOp& op = node.op;
    const std::int32_t n = node.size;
    check_keys(op.kind, field);
    switch (op.kind) {
        case FloatKind::softmax:
        case FloatKind::log_softmax:
            op.groups = static_cast<std::int32_t>(field["groups"].integer(1, n));
            if (n % op.groups != 0)
                field["groups"].fail("is " + std::to_string(op.groups) + ", must divide the " + std::to_string(n) + " features");
            break;
        case FloatKind::layer_norm:
            op.epsilon = field["epsilon"].number();
            if (op.epsilon < 0) field["epsilon"].fail("is negative");
            if (field.has("weight")) op.weight = read_finite(field["weight"], {n}, tensors);
            if (field.has("bias")) op.bias = read_finite(field["bias"], {n}, tensors);
            break;
        case FloatKind::linear: {
            const std::int64_t rows = tensors.shape(field["weight"])[0];
            if (rows > kMaxSize) field["weight"].fail("has " + std::to_string(rows) + " rows, must have at most 2^20");
            op.weight = read_finite(field["weight"], {rows, n}, tensors);
            if (field.has("bias")) op.bias = read_finite(field["bias"], {rows}, tensors);
            node.size = static_cast<std::int32_t>(rows);
            break;
        }
        case FloatKind::add:
        case FloatKind::mul:
            if (inputs[1].size != n)
                field["input"].fail("\"" + inputs[0].name + "\" has the size " + std::to_string(n) + ", but \"" + inputs[1].name +
                                    "\" has " + std::to_string(inputs[1].size));
            break;
        case FloatKind::attention:
            for (const Source& input : inputs)
                if (!input.sequence) field["input"].fail("\"" + input.name + "\" is not a sequence; attention needs two");
            if (n != 1)
                field["input"].fail("\"" + inputs[0].name + "\" has " + std::to_string(n) + " features; scores have 1");
            node.size = inputs[1].size;
            node.sequence = false;
            node.time = {};
            break;
        default: break;  // of each element
    }
    node.format = {};
    node.range = {};
}

}  // namespace rindle
