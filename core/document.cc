#include "document.h"

#include <algorithm>

#include "error.h"
#include "reader.h"

namespace rindle {
namespace {

constexpr std::int64_t kVersion = 2;
constexpr std::int64_t kMaxPathElements = 1 << 24;  // of all programs: bounds a stream's memory
constexpr std::size_t kMaxConcat = 64;

// Within these bounds r of (4) is a normal float32 too.
double read_scale(const Field& field) {
    const double scale = field.number();
    if (!(scale >= 0x1p-64 && scale <= 0x1p64) || static_cast<double>(static_cast<float>(scale)) != scale)
        field.fail("must be a float32 between 2^-64 and 2^64");
    return scale;
}

void check_id(const Field& field) {
    const std::string& id = field.text();
    const auto hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
    if (id.size() != 64 || !std::all_of(id.begin(), id.end(), hex)) field.fail("must be 64 lower-case hex digits");
}

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

// What a node's input is.
struct Value {
    std::string name;
    bool sequence = true;
    Source source = {};
};

Value value_of(const Document& document, int node) {
    if (node == kModelInput)
        return {"input", true, {document.input_size, document.input_format, document.input_range}};
    const Node& found = document.nodes[static_cast<std::size_t>(node)];
    return {found.name, found.sequence, {found.size, found.format, found.range}};
}

NodeKind read_kind(const Field& field, std::int64_t version) {
    const std::string& kind = field.text();
    if (kind == "program") return NodeKind::program;
    if (kind == "last") return NodeKind::last;
    if (kind == "mean") return NodeKind::mean;
    if (version == 1) field.fail("must be \"program\", \"last\" or \"mean\"");
    if (kind == "first") return NodeKind::first;
    if (kind == "concat") return NodeKind::concat;
    if (kind == "embedding") return NodeKind::embedding;
    field.fail("must be \"program\", \"last\", \"first\", \"mean\", \"concat\" or \"embedding\"");
}

// One earlier value, or for a concat several. Ids are read by embeddings alone.
void read_inputs(Node& node, const Field& field, const Document& document, const Names& names) {
    std::vector<Field> fields;
    if (node.kind == NodeKind::concat)
        fields = field.items(2, kMaxConcat);
    else
        fields = {field};
    for (const Field& one : fields) {
        node.inputs.push_back(look_up(names, one, "an earlier node, or \"input\""));
        const bool ids = node.inputs.back() == kModelInput && document.vocabulary > 0;
        if (ids && node.kind != NodeKind::embedding) one.fail("is ids, which only an embedding reads");
        if (!ids && node.kind == NodeKind::embedding) one.fail("is not ids, and an embedding reads nothing else");
    }
}

void read_embedding(Node& node, const Field& field, const Document& document, Container& tensors) {
    node.size = static_cast<std::int32_t>(field["size"].integer(1, kMaxSize));
    field["format"].keys({"bits"}, {"frac", "scale"});
    node.format = read_format(field["format"], true, false);
    node.range = element_range(node.format);
    const std::int64_t row_bytes = (std::int64_t{node.size} * node.format.bits + 7) / 8;
    const auto bytes = tensors.take(field["weight"], "U8", {document.vocabulary, row_bytes});
    check_packed(bytes, document.vocabulary, node.size, node.format.bits, field["weight"]);
    node.rows.assign(bytes.begin(), bytes.end());
}

void read_concat(Node& node, const Field& field, const Document& document) {
    const Value first = value_of(document, node.inputs[0]);
    std::int64_t size = 0;
    for (int input : node.inputs) {
        const Value value = value_of(document, input);
        if (value.sequence != first.sequence)
            field.fail("one of \"" + first.name + "\" and \"" + value.name + "\" is a sequence, the other a vector");
        if (value.source.format != first.source.format)
            field.fail("\"" + first.name + "\" and \"" + value.name + "\" must have one format");
        size += value.source.size;
    }
    if (size > kMaxSize) field.fail("has " + std::to_string(size) + " features in all, must have at most 2^20");
    node.size = static_cast<std::int32_t>(size);
}

Node read_node(const Field& field, const Document& document, const Names& names, const Names& table_names,
               Container& tensors) {
    Node node;
    node.kind = read_kind(field["kind"], document.version);
    if (node.kind == NodeKind::embedding)
        field.keys({"name", "kind", "input", "size", "format", "weight"});
    else if (node.kind != NodeKind::program)
        field.keys({"name", "kind", "input"});
    else if (document.version == 1)
        field.keys({"name", "kind", "input", "program"});
    else
        field.keys({"name", "kind", "input", "program"}, {"reverse"});
    node.name = field["name"].name();
    read_inputs(node, field["input"], document, names);

    const Value before = value_of(document, node.inputs[0]);
    node.sequence = before.sequence;
    node.size = before.source.size;
    node.format = before.source.format;
    node.range = before.source.range;

    switch (node.kind) {
        case NodeKind::last:
        case NodeKind::first:
        case NodeKind::mean:
            if (!before.sequence)
                field["input"].fail("\"" + before.name + "\" is not a sequence; " + field["kind"].text() + " needs one");
            node.sequence = false;
            return node;
        case NodeKind::embedding: read_embedding(node, field, document, tensors); return node;
        case NodeKind::concat: read_concat(node, field["input"], document); return node;
        case NodeKind::program: break;
    }
    if (field.has("reverse")) {
        node.reverse = field["reverse"].boolean();
        if (!node.reverse) field["reverse"].fail("must be true, or left out");
        if (!before.sequence) field["reverse"].fail("is true, but \"" + before.name + "\" is not a sequence");
    }
    node.program = read_program(field["program"], before.source, document.tables, table_names, tensors);
    if (!before.sequence && !node.program.states.empty())
        field["program"]["states"].fail("must be empty: the program runs once, on a vector");
    const Path& output = node.program.paths[static_cast<std::size_t>(node.program.output)];
    node.size = output.size;
    node.format = output.format;
    node.range = output.range;
    return node;
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
    tensors.check_alone(field["outputs"]);
    golden.outputs = tensors.take_numbers<std::int16_t>(
        field["outputs"], "I16",
        output.sequence ? std::vector<std::int64_t>{golden.batch, golden.frames, output.size}
                        : std::vector<std::int64_t>{golden.batch, output.size});
    check_codes(golden.outputs, output.range, field["outputs"]);
    if (output.sequence) {
        const auto size = static_cast<std::size_t>(output.size);
        const auto frames = static_cast<std::size_t>(golden.frames);
        for (std::size_t i = 0; i < golden.outputs.size(); ++i)
            if (golden.outputs[i] != 0 &&
                i / size % frames >= static_cast<std::size_t>(golden.lengths[i / size / frames]))
                field["outputs"].fail("element " + std::to_string(i) + " is not 0 past its row's length");
    }
    return golden;
}

}  // namespace

Format read_format(const Field& field, bool may_be_int, bool may_be_unsigned) {
    Format format;
    format.bits = static_cast<int>(field["bits"].integer(2, 16));
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

Document read_document(std::span<const std::byte> file) {
    Container tensors(file);
    const json::Value value = json::parse(tensors.document());
    const Field root(value, "");

    if (root["version"].is_integer() && root["version"].integer(INT64_MIN, INT64_MAX) > kVersion)
        throw Error(RINDLE_NEWER_VERSION, "version: the file has format version " +
                                              std::to_string(root["version"].integer(INT64_MIN, INT64_MAX)) +
                                              ", this runtime reads up to " + std::to_string(kVersion) +
                                              ": update rindle");
    Document document;
    document.version = root["version"].integer(1, kVersion);
    root.keys({"version", "id", "input", "output", "nodes", "tables", "golden", "provenance"});
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
        for (const Path& path : node.program.paths) elements += path.size;
        if (node.kind == NodeKind::concat || node.kind == NodeKind::embedding) elements += node.size;
        if (elements > kMaxPathElements)
            field.fail("the paths so far have " + std::to_string(elements) + " elements; a model has at most " +
                       std::to_string(kMaxPathElements));
        const std::string& name = document.nodes.back().name;
        if (!names.emplace(name, static_cast<int>(document.nodes.size()) - 1).second)
            field["name"].fail(name == "input" ? "\"input\" is reserved for the model's input"
                                               : "\"" + name + "\" is the name of an earlier node");
    }
    document.output = look_up(names, root["output"], "a node");
    if (document.output == kModelInput) root["output"].fail("must be a node, not the model's input");

    check_tables_used(document, root["tables"]);
    document.golden = read_golden(root["golden"], document, tensors);
    tensors.refuse_unused();
    return document;
}

}  // namespace rindle
