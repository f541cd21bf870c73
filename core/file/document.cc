#include "file/document.h"

#include <algorithm>

#include "file/error.h"
#include "file/reader.h"

namespace rindle {
namespace {

constexpr std::int64_t kVersion = 4;
constexpr std::int64_t kMaxPathElements = 1 << 24;  // of all programs: bounds a stream's memory

Table read_table(const std::string& name, const Field& field, Container& tensors) {
    const bool linear = field.has("degree") && field["degree"].integer(0, 1) == 1;
    if (linear)
        field.keys({"function", "degree", "flag", "x0", "p", "q", "base", "slope", "max_error"});
    else
        field.keys({"function", "degree", "flag", "x0", "p", "q", "base", "max_error"});
    field["function"].name();
    if (field["max_error"].number() < 0) field["max_error"].fail("is negative");

    Table table;
    table.name = name;
    table.degree = linear;
    table.x0 = static_cast<std::int32_t>(field["x0"].integer(INT32_MIN, INT32_MAX));
    table.p = static_cast<int>(field["p"].integer(0, 15));
    table.q = static_cast<int>(field["q"].integer(0, 30));
    const std::string& flag = field["flag"].text();
    if (flag == "odd")
        table.symmetry = Symmetry::odd;
    else if (flag == "sigmoid")
        table.symmetry = Symmetry::sigmoid;
    else if (flag != "none")
        field["flag"].fail("must be \"none\", \"odd\" or \"sigmoid\"");
    if (table.symmetry != Symmetry::none && table.x0 != 0)
        field["x0"].fail("is " + std::to_string(table.x0) + ", must be 0 with the flag \"" + flag + "\"");

    const std::int64_t n = tensors.shape(field["base"])[0];
    if (n > 256 || (n & (n - 1)) != 0)
        field["base"].fail("has " + std::to_string(n) + " segments, must have a power of two up to 256");
    table.base = tensors.take_numbers<std::int16_t>(field["base"], "I16", {n});
    if (linear) table.slope = tensors.take_numbers<std::int16_t>(field["slope"], "I16", {n});
    return table;
}

template <class Codes>
void check_codes(const Codes& codes, const Range& range, const Field& field) {
    for (std::size_t i = 0; i < codes.size(); ++i)
        if (codes[i] < range.lo || codes[i] > range.hi)
            field.fail("element " + std::to_string(i) + " is " + std::to_string(codes[i]) + ", must be " +
                       std::to_string(range.lo) + ".." + std::to_string(range.hi));
}

void check_tables_used(const Document& document, const Field& field) {
    std::vector<char> used(document.tables.size());
    for (const Node& node : document.nodes)
        for (const Op& op : node.program.ops)
            if (op.kind == OpKind::table) used[static_cast<std::size_t>(op.table)] = true;
    for (std::size_t i = 0; i < used.size(); ++i)
        if (!used[i]) field[document.tables[i].name].fail("is not used by any operation");
}

// What a node needs of a stream's memory, in elements: its paths, or its value. A window keeps frames of its input, too.
std::int64_t elements_of(const Node& node) {
    std::int64_t elements = 0;
    switch (node.kind) {
        case NodeKind::program:
            for (const Path& path : node.program.paths) elements += path.size;
            return elements;
        case NodeKind::window: return node.size + node.window.span() * (node.size / node.window.size);
        case NodeKind::concat:
        case NodeKind::embedding:
        case NodeKind::gather:
        case NodeKind::floating: return node.size;
        default: return 0;  // last, first, mean and max have the size of a value that has been counted
    }
}

// Frames of a node's sequence for a row of T >= 1; 0 where a window on the way gets too few.
std::int64_t frames_of(const Document& document, int node, std::int64_t frames) {
    std::vector<const Window*> windows;
    for (; node != kModelInput; node = document.nodes[static_cast<std::size_t>(node)].inputs[0])
        if (const Node& at = document.nodes[static_cast<std::size_t>(node)]; at.kind == NodeKind::window)
            windows.push_back(&at.window);
    for (; frames > 0 && !windows.empty(); windows.pop_back()) frames = windows.back()->frames(frames);
    return frames;
}

// Every window of every row has at least one frame.
void check_lengths(const Golden& golden, const Document& document, const Field& field) {
    const std::int64_t shortest = *std::min_element(golden.lengths.begin(), golden.lengths.end());
    for (std::size_t i = 0; i < document.nodes.size(); ++i)
        if (document.nodes[i].kind == NodeKind::window && frames_of(document, static_cast<int>(i), shortest) == 0)
            field.fail("a row of " + std::to_string(shortest) + " frames is too short for the window \"" +
                       document.nodes[i].name + "\"");
}

// Past a row's own frames, which the windows make of its length, there are zeros.
template <class Value>
void check_ends(const std::vector<Value>& outputs, const Golden& golden, const Document& document, const Field& field) {
    const auto size = outputs.size() / golden.lengths.size();
    const auto features = static_cast<std::size_t>(document.nodes[static_cast<std::size_t>(document.output)].size);
    for (std::size_t row = 0; row < golden.lengths.size(); ++row) {
        const auto frames = static_cast<std::size_t>(frames_of(document, document.output, golden.lengths[row]));
        for (std::size_t i = row * size + frames * features; i < (row + 1) * size; ++i)
            if (outputs[i] != 0) field.fail("element " + std::to_string(i) + " is not 0 past its row's length");
    }
}

Golden read_golden(const Field& field, const Document& document, Container& tensors) {
    field.keys({"inputs", "outputs", "lengths"});
    const Node& output = document.nodes[static_cast<std::size_t>(document.output)];
    tensors.check_alone(field["inputs"]);
    const auto shape = tensors.shape(field["inputs"]);
    const bool ids = document.vocabulary > 0;
    if (shape.size() != (ids ? 2 : 3)) field["inputs"].fail(ids ? "must have the shape [B, T]" : "must have the shape [B, T, I]");

    Golden golden;
    golden.batch = shape[0];
    golden.frames = shape[1];
    if (golden.batch > 65536 / golden.frames) field["inputs"].fail("B*T must be at most 65536");
    if (ids) {
        golden.ids = tensors.take_numbers<std::int32_t>(field["inputs"], "I32", {golden.batch, golden.frames});
        check_codes(golden.ids, {0, document.vocabulary - 1}, field["inputs"]);
    } else {
        golden.inputs = tensors.take_numbers<std::int16_t>(field["inputs"], "I16",
                                                           {golden.batch, golden.frames, document.input_size});
        check_codes(golden.inputs, document.input_range, field["inputs"]);
    }
    tensors.check_alone(field["lengths"]);
    golden.lengths = tensors.take_numbers<std::int32_t>(field["lengths"], "I32", {golden.batch});
    check_codes(golden.lengths, {1, static_cast<std::int32_t>(golden.frames)}, field["lengths"]);
    check_lengths(golden, document, field["lengths"]);

    tensors.check_alone(field["outputs"]);
    std::vector<std::int64_t> wanted = {golden.batch, output.size};
    if (output.sequence) wanted.insert(wanted.begin() + 1, frames_of(document, document.output, golden.frames));
    if (output.is_float()) {
        golden.float_outputs = tensors.take_numbers<float>(field["outputs"], "F32", wanted);
        check_finite(golden.float_outputs, field["outputs"]);
        if (output.sequence) check_ends(golden.float_outputs, golden, document, field["outputs"]);
    } else {
        golden.outputs = tensors.take_numbers<std::int16_t>(field["outputs"], "I16", wanted);
        check_codes(golden.outputs, output.range, field["outputs"]);
        if (output.sequence) check_ends(golden.outputs, golden, document, field["outputs"]);
    }
    return golden;
}

}  // namespace

void check_id(const Field& field) {
    const std::string& id = field.text();
    const auto hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
    if (id.size() != 64 || !std::all_of(id.begin(), id.end(), hex)) field.fail("must be 64 lower-case hex digits");
}

// Within these bounds r of (4) is a normal float32 too.
double read_scale(const Field& field) {
    const double scale = field.number();
    if (!(scale >= 0x1p-64 && scale <= 0x1p64) || static_cast<double>(static_cast<float>(scale)) != scale)
        field.fail("must be a float32 between 2^-64 and 2^64");
    return scale;
}

Format read_format(const Field& field, bool may_be_int, bool may_be_unsigned) {
    Format format;
    format.bits = static_cast<int>(field["bits"].integer(kLeastBits, kMostBits));
    if (may_be_int && field.has("scale")) {
        if (field.has("frac")) field.fail("has both \"frac\" and \"scale\"");
        format.fixed = false;
        format.scale = read_scale(field["scale"]);
    } else {
        format.frac = static_cast<int>(field["frac"].integer(-64, 64));
        format.scale = std::ldexp(1.0, -format.frac);
    }
    if (may_be_unsigned && field.has("signed")) {
        if (field["signed"].boolean()) field["signed"].fail("must be false, or left out");
        if (format.bits > 7)
            field["signed"].fail("an unsigned code has at most 7 bits, not " + std::to_string(format.bits));
        format.is_signed = false;
    }
    return format;
}

Range code_range(const Format& format) {
    if (!format.is_signed) return {0, (1 << format.bits) - 1};
    const std::int32_t hi = (1 << (format.bits - 1)) - 1;
    return {-hi, hi};
}

Range element_range(const Format& format) {
    if (format.fixed && format.bits == 16) return {-32768, 32767};
    return code_range(format);
}

int look_up(const Names& names, const Field& field, const char* what) {
    const auto found = names.find(field.name());
    if (found == names.end()) field.fail("\"" + field.name() + "\" is not the name of " + what);
    return found->second;
}

Document read_model(const Field& root, Container& tensors) {
    if (root["version"].is_integer() && root["version"].integer(INT64_MIN, INT64_MAX) > kVersion)
        throw Error(RINDLE_NEWER_VERSION, "version: the file has format version " +
                                              std::to_string(root["version"].integer(INT64_MIN, INT64_MAX)) +
                                              ", this runtime reads up to " + std::to_string(kVersion) +
                                              ": update rindle");
    Document document;
    document.version = root["version"].integer(1, kVersion);
    if (document.version < 4) {
        root.keys({"version", "id", "input", "output", "nodes", "tables", "golden", "provenance"});
    } else {
        document.needs = Needs(root["needs"]);
        root.keys({"version", "needs", "id", "input", "outputs", "nodes", "tables", "golden", "provenance"});
    }
    check_id(root["id"]);
    root["provenance"].check_object();

    document.id = root["id"].text();

    const Field input = root["input"];
    if (document.version > 1 && input.has("vocabulary")) {
        input.keys({"vocabulary"});
        document.vocabulary = static_cast<std::int32_t>(input["vocabulary"].integer(1, kMaxSize));
        document.input_size = 1;
    } else {
        input.keys({"size", "format"});
        document.input_size = static_cast<std::int32_t>(input["size"].integer(1, kMaxSize));
        input["format"].keys({"bits"}, {"frac", "scale", "signed"});
        document.input_format = read_format(input["format"], true, true);
        document.input_range = element_range(document.input_format);
    }

    Names table_names;
    for (const auto& [name, field] : root["tables"].members()) {
        table_names.emplace(name, static_cast<int>(document.tables.size()));
        document.tables.push_back(read_table(name, field, tensors));
    }

    std::int64_t elements = 0;
    Names names = {{"input", kModelInput}};
    for (const Field& field : root["nodes"].items(1, 1024)) {
        document.nodes.push_back(read_node(field, document, names, table_names, tensors));
        const Node& node = document.nodes.back();
        elements += elements_of(node);
        if (elements > kMaxPathElements)
            field.fail("the paths so far have " + std::to_string(elements) + " elements; a model has at most " +
                       std::to_string(kMaxPathElements));
        const std::string& name = document.nodes.back().name;
        if (!names.emplace(name, static_cast<int>(document.nodes.size()) - 1).second)
            field["name"].fail(name == "input" ? "\"input\" is reserved for the model's input"
                                               : "\"" + name + "\" is the name of an earlier node");
    }
    const Field output = document.version < 4 ? root["output"] : root["outputs"].items(1, 1)[0];
    document.output = look_up(names, output, "a node");
    if (document.output == kModelInput) output.fail("must be a node, not the model's input");

    check_tables_used(document, root["tables"]);
    document.golden = read_golden(root["golden"], document, tensors);
    tensors.refuse_unused();
    if (document.version >= 4) document.needs.refuse_unused(root["needs"]);
    return document;
}

}  // namespace rindle
