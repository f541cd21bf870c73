// One node of the document: its kind, what it reads, and what its value is.
#include <algorithm>

#include "file/error.h"
#include "file/reader.h"

namespace rindle {
namespace {

constexpr std::size_t kMaxInputs = 64;
constexpr std::int64_t kMaxWindow = 4096, kMaxFrames = 1 << 20;  // of a window: size, dilation, stride; padding and span

Source source_of(const Document& document, int node) {
    if (node == kModelInput)
        return {"input", document.input_size, document.input_format, document.input_range, true, {}, false};
    const Node& found = document.nodes[static_cast<std::size_t>(node)];
    return {found.name, found.size, found.format, found.range, found.sequence, found.time, found.is_float()};
}

// One earlier value, or several where `several` says so. Ids are read by embeddings alone, floats by float nodes.
std::vector<Source> read_inputs(Node& node, const Field& field, bool several, const Document& document,
                                const Names& names) {
    std::vector<Field> fields = {field};
    if (several) fields = field.items(2, node.is_float() ? 2 : kMaxInputs);
    std::vector<Source> sources;
    for (const Field& one : fields) {
        node.inputs.push_back(look_up(names, one, "an earlier node, or \"input\""));
        const bool ids = node.inputs.back() == kModelInput && document.vocabulary > 0;
        if (ids && node.kind != NodeKind::embedding) one.fail("is ids, which only an embedding reads");
        if (!ids && node.kind == NodeKind::embedding) one.fail("is not ids, and an embedding reads nothing else");
        sources.push_back(source_of(document, node.inputs.back()));
        if (sources.back().is_float && !node.is_float())
            one.fail("\"" + sources.back().name + "\" is float, which only float nodes read");
    }
    for (const Source& source : sources) {
        const std::string both = "\"" + sources[0].name + "\" and \"" + source.name + "\"";
        if (source.sequence != sources[0].sequence)
            field.fail("one of " + both + " is a sequence, the other a vector");
        if (source.time != sources[0].time)
            field.fail(both + " are not of one time base: other windows stand between them and the input");
    }
    return sources;
}

// What the reader of a kind is given. sources: what the node reads; the node has the size and format of the first, and its time.
struct Place {
    const Field& field;
    const std::vector<Source>& sources;
    const Document& document;
    const Names& table_names;
    Container& tensors;
};

void need_sequence(const Place& place) {
    if (!place.sources[0].sequence)
        place.field["input"].fail("\"" + place.sources[0].name + "\" is not a sequence; " + place.field["kind"].text() +
                                  " needs one");
}

// One vector of the frames of a row.
void read_reduction(Node& node, const Place& place) {
    place.field.keys({"name", "kind", "input"});
    need_sequence(place);
    node.sequence = false;
    node.time = {};
}

void read_embedding(Node& node, const Place& place) {
    const auto& [field, sources, document, table_names, tensors] = place;
    field.keys({"name", "kind", "input", "size", "format", "weight"});
    node.size = static_cast<std::int32_t>(field["size"].integer(1, kMaxSize));
    field["format"].keys({"bits"}, {"frac", "scale"});
    node.format = read_format(field["format"], true, false);
    node.range = element_range(node.format);
    const std::int64_t row_bytes = (std::int64_t{node.size} * node.format.bits + 7) / 8;
    const auto bytes = tensors.take(field["weight"], "U8", {document.vocabulary, row_bytes});
    check_packed(bytes, document.vocabulary, node.size, integers(node.format.bits), field["weight"]);
    node.rows.assign(bytes.begin(), bytes.end());
}

void read_concat(Node& node, const Place& place) {
    place.field.keys({"name", "kind", "input"});
    const Field field = place.field["input"];
    const std::vector<Source>& sources = place.sources;
    std::int64_t size = 0;
    for (const Source& source : sources) {
        if (source.format != sources[0].format)
            field.fail("\"" + sources[0].name + "\" and \"" + source.name + "\" must have one format");
        size += source.size;
    }
    if (size > kMaxSize) field.fail("has " + std::to_string(size) + " features in all, must have at most 2^20");
    node.size = static_cast<std::int32_t>(size);
}

// The same number of frames from the same frames: neighbours of stride 1 add up, and to nothing where they lose none.
void append(TimeBase& time, const Window& window) {
    std::int64_t loss = window.loss();
    if (window.stride == 1) {
        if (!time.empty() && time.back()[1] == 1) {
            loss += time.back()[0];
            time.pop_back();
        }
        if (loss == 0) return;
    }
    time.push_back({loss, window.stride});
}

void read_window(Node& node, const Place& place) {
    const Field& field = place.field;
    const Source& source = place.sources[0];
    field.keys({"name", "kind", "input", "size", "dilation", "stride", "before", "after"});
    need_sequence(place);
    Window& window = node.window;
    window.size = field["size"].integer(1, kMaxWindow);
    window.dilation = field["dilation"].integer(1, kMaxWindow);
    window.stride = field["stride"].integer(1, kMaxWindow);
    window.before = field["before"].integer(0, kMaxFrames);
    window.after = field["after"].integer(0, kMaxFrames);
    if (window.span() > kMaxFrames)
        field.fail("spans " + std::to_string(window.span()) + " frames, dilation * (size - 1), must span at most 2^20");
    const std::int64_t size = window.size * source.size;
    if (size > kMaxSize) field.fail("has " + std::to_string(size) + " features, size * those of its input, must have at most 2^20");
    node.size = static_cast<std::int32_t>(size);
    append(node.time, window);
}

void read_gather(Node& node, const Place& place) {
    place.field.keys({"name", "kind", "input", "index"});
    const Field field = place.field["index"];
    const Source& source = place.sources[0];
    const std::int64_t n = place.tensors.shape(field)[0];
    if (n > kMaxSize) field.fail("has " + std::to_string(n) + " features, must have at most 2^20");
    node.index = place.tensors.take_numbers<std::int32_t>(field, "I32", {n});
    for (std::size_t i = 0; i < node.index.size(); ++i)
        if (node.index[i] < 0 || node.index[i] >= source.size)
            field.fail("element " + std::to_string(i) + " is " + std::to_string(node.index[i]) + ", must be 0.." +
                       std::to_string(source.size - 1));
    node.size = static_cast<std::int32_t>(n);
}

void read_program_node(Node& node, const Place& place) {
    const auto& [field, sources, document, table_names, tensors] = place;
    if (document.version == 1)
        field.keys({"name", "kind", "input", "program"});
    else
        field.keys({"name", "kind", "input", "program"}, {"reverse"});
    if (field.has("reverse")) {
        node.reverse = field["reverse"].boolean();
        if (!node.reverse) field["reverse"].fail("must be true, or left out");
        if (!node.sequence) field["reverse"].fail("is true, but \"" + sources[0].name + "\" is not a sequence");
    }
    node.program = read_program(field["program"], sources, document, table_names, tensors);
    if (!node.sequence && !node.program.states.empty())
        field["program"]["states"].fail("must be empty: the program runs once, on a vector");
    const Path& output = node.program.paths[static_cast<std::size_t>(node.program.output)];
    node.size = output.size;
    node.format = output.format;
    node.range = output.range;
}

void read_float_node(Node& node, const Place& place) { read_float(node, place.field, place.sources, place.tensors); }

enum class Inputs { one, several, either, of_op };  // how many nodes "input" names; `either` from version 3 on

struct Kind {
    const char* name;
    NodeKind kind;
    std::int64_t version;  // from which on a file may have it
    Inputs inputs;
    void (*read)(Node&, const Place&);  // its own keys
};

constexpr Kind kKinds[] = {
    {"program", NodeKind::program, 1, Inputs::either, read_program_node},
    {"last", NodeKind::last, 1, Inputs::one, read_reduction},
    {"mean", NodeKind::mean, 1, Inputs::one, read_reduction},
    {"first", NodeKind::first, 2, Inputs::one, read_reduction},
    {"concat", NodeKind::concat, 2, Inputs::several, read_concat},
    {"embedding", NodeKind::embedding, 2, Inputs::one, read_embedding},
    {"window", NodeKind::window, 3, Inputs::one, read_window},
    {"gather", NodeKind::gather, 3, Inputs::one, read_gather},
    {"max", NodeKind::max, 3, Inputs::one, read_reduction},
    {"float", NodeKind::floating, 3, Inputs::of_op, read_float_node},
};

const Kind& read_kind(const Field& field, std::int64_t version) {
    const std::string& name = field.text();
    std::string known;
    for (const Kind& kind : kKinds) {
        if (kind.version > version) continue;
        if (kind.name == name) return kind;
        known += (known.empty() ? "\"" : ", \"") + std::string(kind.name) + "\"";
    }
    field.fail("must be one of " + known);
}

// Whether the node's "input" is an array of names.
bool reads_several(const Node& node, Inputs inputs, const Field& field, std::int64_t version) {
    switch (inputs) {
        case Inputs::one: return false;
        case Inputs::several: return true;
        case Inputs::either: return version >= 3 && field["input"].is_array();
        case Inputs::of_op: break;
    }
    return node.op.kind == FloatKind::add || node.op.kind == FloatKind::mul || node.op.kind == FloatKind::attention;
}

}  // namespace

Node read_node(const Field& field, const Document& document, const Names& names, const Names& table_names,
               Container& tensors) {
    Node node;
    const Kind& kind = read_kind(field["kind"], document.version);
    node.kind = kind.kind;
    node.name = field["name"].name();
    if (node.is_float()) node.op.kind = read_float_kind(field["op"]);
    const bool several = reads_several(node, kind.inputs, field, document.version);
    const auto sources = read_inputs(node, field["input"], several, document, names);

    const Source& first = sources[0];
    node.sequence = first.sequence;
    node.time = first.time;
    node.size = first.size;
    node.format = first.format;
    node.range = first.range;
    kind.read(node, {field, sources, document, table_names, tensors});
    return node;
}

}  // namespace rindle
