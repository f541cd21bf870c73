#include "small_model.h"

#include <cstdlib>

#include "check.h"

// Two features. y = sat((3·(W q) + b) >> 1) with W = [1 2; 3 -1], b = (4, -6), q the held 8-bit code of x;
// then g = table(y), z = y·v + g·g, s = requantize(s + z) is the state and the output; `last` takes its last frame.
SmallModel::SmallModel() {
    document = R"({
 "version": 1,
 "id": "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
 "input": {"size": 2, "format": {"bits": 16, "frac": 4}},
 "output": "final",
 "nodes": [
  {"name": "cell", "kind": "program", "input": "input", "program": {
   "cell": "test", "input": "x", "states": [["s", "s.next"]], "output": "s.next",
   "paths": {"x": {"size": 2, "bits": 16, "frac": 4}, "y": {"size": 2, "bits": 16, "frac": 6},
             "g": {"size": 2, "bits": 16, "frac": 10}, "z": {"size": 2, "bits": 16, "frac": 8},
             "s": {"size": 2, "bits": 8, "frac": 8}, "s.next": {"size": 2, "bits": 8, "frac": 8},
             "sum": {"size": 2, "bits": 16, "frac": 5}, "capped": {"size": 2, "bits": 16, "frac": 5}},
   "codes": {"q": {"size": 2, "bits": 8, "scale": 0.5, "theta": 1}},
   "vectors": {"v": {"size": 2, "bits": 16, "frac": 7, "tensor": "cell.v"}},
   "ops": [
    {"op": "requantize", "out": "q", "in": "x", "multiplier": 5, "shift": 2},
    {"op": "affine", "out": ["y"], "bias": "cell.bias", "shift": 1, "terms": [
     {"in": "q", "gates": ["y"], "weight": "cell.weight", "bits": 3, "scales": "cell.scales", "multiplier": "cell.m"}]},
    {"op": "table", "out": "g", "in": "y", "table": "ramp"},
    {"op": "sum_of_products", "out": "z", "in": ["y", "v", "g", "g"]},
    {"op": "add", "out": "sum", "in": ["s", "z"]},
    {"op": "clip", "out": "capped", "in": "sum", "lo": -90, "hi": 90},
    {"op": "requantize", "out": "s.next", "in": "capped", "multiplier": 1, "shift": 0}]}},
  {"name": "final", "kind": "last", "input": "cell"}],
 "tables": {"ramp": {"function": "ramp", "degree": 1, "flag": "odd", "x0": 0, "p": 4, "q": 3, "base": "ramp.base",
                     "slope": "ramp.slope", "max_error": 0.5}},
 "golden": {"inputs": "golden.inputs", "outputs": "golden.outputs", "lengths": "golden.lengths"},
 "provenance": {"any": ["thing", 1e3, null, {}]}
})";
    set<std::int16_t>("cell.v", "I16", "[2]", {100, -3});
    set<std::int64_t>("cell.bias", "I64", "[2]", {4, -6});
    set<std::uint8_t>("cell.weight", "U8", "[2,1]", {1 | 2 << 3, 3 | 7 << 3});
    set<float>("cell.scales", "F32", "[2]", {0.5F, 1.0F});
    set<std::int32_t>("cell.m", "I32", "[2]", {3, 3});
    set<std::int16_t>("ramp.base", "I16", "[2]", {0, 10});
    set<std::int16_t>("ramp.slope", "I16", "[2]", {5, 8});
    set<std::int16_t>("golden.inputs", "I16", "[1,3,2]", {3, -2, 40, 8, 100, 100});
    set<std::int32_t>("golden.lengths", "I32", "[1]", {2});
    set<std::int16_t>("golden.outputs", "I16", "[1,2]", {0, 0});
}

std::string SmallModel::header() const {
    std::string escaped;
    for (char c : document) {
        if (c == '"' || c == '\\') escaped += '\\';
        escaped += c == '\n' ? ' ' : c;
    }
    std::string json = R"({"__metadata__":{"rindle":")" + escaped + "\"}";
    std::size_t offset = 0;
    for (const auto& [name, tensor] : tensors) {
        const std::size_t end = offset + tensor.bytes.size();
        json += ",\"" + name + R"(":{"dtype":")" + tensor.dtype + R"(","shape":)" + tensor.shape +
                ",\"data_offsets\":[" + std::to_string(offset) + "," + std::to_string(end) + "]}";
        offset = end;
    }
    return json + "}";
}

std::string SmallModel::file(const std::string& header) const {
    std::string bytes;
    for (std::uint64_t size = header.size(); bytes.size() < 8; size >>= 8) bytes += static_cast<char>(size & 255);
    bytes += header;
    for (const auto& [name, tensor] : tensors) bytes += tensor.bytes;
    return bytes;
}

std::string replaced(const std::string& text, const std::string& from, const std::string& to) {
    const std::size_t at = text.find(from);
    if (at == std::string::npos || text.find(from, at + 1) != std::string::npos) {
        std::printf("test error: \"%s\" does not stand exactly once\n", from.c_str());
        std::exit(2);
    }
    return text.substr(0, at) + to + text.substr(at + from.size());
}
