// A program of the document: its paths, its operations, and that each path is written once and before it is read.
#include <algorithm>

#include "file/error.h"
#include "file/reader.h"

namespace rindle {
namespace {

class ProgramReader {
  public:
    ProgramReader(const Field& field, const std::vector<Source>& inputs, const Document& document, const Names& table_names,
                  Container& tensors)
        : field_(field), inputs_(inputs), document_(document), table_names_(table_names), tensors_(tensors) {}

    Program read() {
        if (document_.version < 4)
            field_.keys({"cell", "input", "states", "output", "paths", "codes", "vectors", "ops"});
        else
            field_.keys({"cell", "input", "states", "output", "paths", "codes", "vectors", "ops"}, {"initial"});
        field_["cell"].name();
        if (inputs_.size() == 1)
            input_fields_ = {field_["input"]};
        else
            input_fields_ = field_["input"].items(inputs_.size(), inputs_.size());
        read_paths();
        read_frame();
        for (const Field& op : field_["ops"].items(1, 256)) read_op(op);
        read_results();
        for (std::size_t i = 0; i < program_.paths.size(); ++i) {
            const std::string& name = program_.paths[i].name;
            if (!written_[i]) field_.fail("path \"" + name + "\" is never written");
            if (!used_[i]) field_.fail("path \"" + name + "\" is never used");
        }
        return std::move(program_);
    }

  private:
    // ---- Paths

    void read_paths() {
        for (const auto& [name, field] : field_["paths"].members()) {
            const std::string& own = name;  // clang 14 captures no structured binding
            const bool is_input = std::any_of(input_fields_.begin(), input_fields_.end(),
                                              [&own](const Field& input) { return input.name() == own; });
            if (is_input)
                field.keys({"size", "bits"}, {"frac", "scale", "signed"});
            else
                field.keys({"size", "bits", "frac"});
            Path& path = add(name, Role::element, field);
            path.format = read_format(field, is_input, is_input);
            path.range = element_range(path.format);
        }
        for (const auto& [name, field] : field_["codes"].members()) {
            field.keys({"size", "bits"}, {"frac", "scale", "signed", "theta"});
            Path& path = add(name, Role::code, field);
            path.format = read_format(field, true, true);
            path.range = code_range(path.format);
            if (field.has("theta")) read_theta(path, field["theta"]);
        }
        for (const auto& [name, field] : field_["vectors"].members()) {
            field.keys({"size", "bits", "frac", "tensor"});
            Path& path = add(name, Role::vector, field);
            path.format = read_format(field, false, false);
            path.range = element_range(path.format);
            path.constant = tensors_.take_numbers<std::int16_t>(field["tensor"], "I16", {path.size});
            for (std::int16_t code : path.constant)
                if (code < path.range.lo || code > path.range.hi)
                    field["tensor"].fail("has the code " + std::to_string(code) + ", must be " +
                                         std::to_string(path.range.lo) + ".." + std::to_string(path.range.hi));
            written_.back() = true;
        }
    }

    Path& add(const std::string& name, Role role, const Field& field) {
        if (!names_.emplace(name, static_cast<int>(program_.paths.size())).second)
            field.fail("the name stands in more than one of paths, codes and vectors");
        Path path;
        path.name = name;
        path.role = role;
        path.size = static_cast<std::int32_t>(field["size"].integer(1, kMaxSize));
        written_.push_back(false);
        used_.push_back(false);
        return program_.paths.emplace_back(std::move(path));
    }

    void read_theta(Path& path, const Field& field) {
        path.held = true;
        if (field.is_integer()) {
            path.theta.assign(static_cast<std::size_t>(path.size),
                              static_cast<std::int16_t>(field.integer(0, path.range.hi - 1)));
            return;
        }
        path.theta = tensors_.take_numbers<std::int16_t>(field, "I16", {path.size});
        for (std::int16_t theta : path.theta)
            if (theta < 0 || theta >= path.range.hi)
                field.fail("has the threshold " + std::to_string(theta) + ", must be 0.." +
                           std::to_string(path.range.hi - 1));
    }

    const Path& path(int index) const { return program_.paths[static_cast<std::size_t>(index)]; }

    // ---- What the frame writes before the operations, and reads after them

    void read_frame() {
        for (std::size_t i = 0; i < inputs_.size(); ++i) {
            const Field& field = input_fields_[i];
            program_.inputs.push_back(look_up(names_, field, "a path"));
            const Path& x = path(program_.inputs.back());
            if (x.role != Role::element) field.fail("\"" + x.name + "\" must be one of \"paths\"");
            if (x.size != inputs_[i].size || x.format != inputs_[i].format)
                field.fail("path \"" + x.name + "\" must have the size (" + std::to_string(inputs_[i].size) +
                           ") and format of the node's input \"" + inputs_[i].name + "\"");
            write(program_.inputs.back(), field);
        }
        for (const Field& field : field_["states"].items(0, kMaxStates)) {
            const auto pair = field.items(2, 2);
            const int state = look_up(names_, pair[0], "a path"), next = look_up(names_, pair[1], "a path");
            if (path(state).role != Role::element) pair[0].fail("a state must be one of \"paths\"");
            if (path(next).role != Role::element) pair[1].fail("a state's next value must be one of \"paths\"");
            if (path(state).size != path(next).size || path(state).format != path(next).format)
                field.fail("a state and its next value must have one format and size");
            write(state, pair[0]);
            for (const auto& earlier : program_.states)
                if (earlier[1] == next) pair[1].fail("\"" + path(next).name + "\" is the next value of two states");
            program_.states.push_back({state, next});
        }
        program_.initial.resize(program_.states.size());
        if (document_.version >= 4 && field_.has("initial")) read_initial(field_["initial"]);
    }

    void read_initial(const Field& field) {
        document_.needs.use("initial_states", field);
        if (field.members().empty()) field.fail("is empty; leave it out where every state begins at zero");
        for (const auto& [name, tensor] : field.members()) {
            const std::string& own = name;  // clang 14 captures no structured binding
            const auto state = std::find_if(program_.states.begin(), program_.states.end(),
                                            [&](const auto& pair) { return path(pair[0]).name == own; });
            if (state == program_.states.end()) tensor.fail("\"" + name + "\" is no state");
            const Path& at = path((*state)[0]);
            auto codes = tensors_.take_numbers<std::int16_t>(tensor, "I16", {at.size});
            for (std::int16_t code : codes)
                if (code < at.range.lo || code > at.range.hi)
                    tensor.fail("has the code " + std::to_string(code) + ", must be " + std::to_string(at.range.lo) + ".." +
                                std::to_string(at.range.hi));
            program_.initial[static_cast<std::size_t>(state - program_.states.begin())] = std::move(codes);
        }
    }

    void read_results() {
        program_.output = look_up(names_, field_["output"], "a path");
        if (path(program_.output).role != Role::element) field_["output"].fail("must be one of \"paths\"");
        use(program_.output, field_["output"]);
        for (const auto& state : program_.states) use(state[1], field_["states"]);
    }

    void write(int index, const Field& field) {
        const auto i = static_cast<std::size_t>(index);
        if (written_[i]) field.fail("path \"" + path(index).name + "\" is written a second time");
        written_[i] = true;
    }

    void use(int index, const Field& field) {
        const auto i = static_cast<std::size_t>(index);
        if (!written_[i]) field.fail("path \"" + path(index).name + "\" is read before it is written");
        used_[i] = true;
    }

    // ---- Operations

    void read_op(const Field& field) {
        const std::string& name = field["op"].name();
        const auto kind = std::find(kOpNames.begin(), kOpNames.end(), name);
        if (kind == kOpNames.end()) field["op"].fail("\"" + name + "\" is not an operation");
        Op op;
        op.kind = static_cast<OpKind>(kind - kOpNames.begin());
        switch (op.kind) {
            case OpKind::affine: read_affine(op, field); break;
            case OpKind::requantize: read_requantize(op, field); break;
            case OpKind::add:
            case OpKind::sub:
            case OpKind::mul: read_elementwise(op, field, 2); break;
            case OpKind::sum_of_products: read_elementwise(op, field, 4); break;
            case OpKind::lerp: read_elementwise(op, field, 3); break;
            case OpKind::clip: read_clip(op, field); break;
            case OpKind::table: read_table(op, field); break;
        }
        program_.ops.push_back(std::move(op));
    }

    int read_operand(const Field& field, bool fixed = true) {
        const int index = look_up(names_, field, "a path");
        if (path(index).role == Role::code) field.fail("\"" + path(index).name + "\" is a code, which only an affine reads");
        if (fixed && !(path(index).format.fixed && path(index).format.is_signed))
            field.fail("\"" + path(index).name + "\" has an int or unsigned format: it can only be requantized");
        use(index, field);
        return index;
    }

    int read_result(const Field& field) {
        const int index = look_up(names_, field, "a path");
        if (path(index).role != Role::element) field.fail("\"" + path(index).name + "\" must be one of \"paths\"");
        write(index, field);
        return index;
    }

    void check_not_constant(const Op& op, const Field& field) const {
        for (int operand : op.in)
            if (path(operand).role != Role::vector) return;
        field["in"].fail("names constants only: one operand at least must not be a vector");
    }

    void check_sizes(const Op& op, const Field& field) const {
        for (int operand : op.in)
            if (path(operand).size != path(op.out[0]).size)
                field.fail("\"" + path(operand).name + "\" has the size " + std::to_string(path(operand).size) +
                           ", but \"" + path(op.out[0]).name + "\" has " + std::to_string(path(op.out[0]).size));
    }

    void read_requantize(Op& op, const Field& field) {
        field.keys({"op", "out", "in", "multiplier", "shift"});
        op.in = {read_operand(field["in"], false)};
        check_not_constant(op, field);
        op.out = {look_up(names_, field["out"], "a path")};
        if (path(op.out[0]).role == Role::vector) field["out"].fail("\"" + path(op.out[0]).name + "\" is a constant vector");
        write(op.out[0], field["out"]);
        op.multiplier = static_cast<std::int32_t>(field["multiplier"].integer(0, (1 << 22) - 1));
        op.shift = static_cast<int>(field["shift"].integer(0, 40));
        check_sizes(op, field);
    }

    void read_elementwise(Op& op, const Field& field, std::size_t operands) {
        field.keys({"op", "out", "in"});
        for (const Field& operand : field["in"].items(operands, operands)) op.in.push_back(read_operand(operand));
        check_not_constant(op, field);
        op.out = {read_result(field["out"])};
        check_sizes(op, field);
        op.alignment = align(op, program_.paths, field);
    }

    void read_clip(Op& op, const Field& field) {
        field.keys({"op", "out", "in", "lo", "hi"});
        op.in = {read_operand(field["in"])};
        check_not_constant(op, field);
        op.out = {read_result(field["out"])};
        check_sizes(op, field);
        const Path &x = path(op.in[0]), &y = path(op.out[0]);
        if (x.format != y.format) field.fail("\"" + y.name + "\" must have the format of \"" + x.name + "\"");
        op.clip.lo = static_cast<std::int32_t>(field["lo"].integer(x.range.lo, x.range.hi));
        op.clip.hi = static_cast<std::int32_t>(field["hi"].integer(op.clip.lo, x.range.hi));
    }

    void read_table(Op& op, const Field& field) {
        field.keys({"op", "out", "in", "table"});
        op.in = {read_operand(field["in"])};
        check_not_constant(op, field);
        op.out = {read_result(field["out"])};
        check_sizes(op, field);
        op.table = look_up(table_names_, field["table"], "a table");
        const Table& table = document_.tables[static_cast<std::size_t>(op.table)];
        const Path& y = path(op.out[0]);
        if (table.degree == 0)  // (18) has no sat at degree 0, so the entries themselves must be codes of y
            for (std::int16_t base : table.base)
                if (base < y.range.lo || base > y.range.hi)
                    field["table"].fail("\"" + table.name + "\" has the entry " + std::to_string(base) +
                                        ", which is not a code of \"" + y.name + "\"");
        if (table.symmetry == Symmetry::sigmoid && (y.format.frac < 0 || y.format.frac > 30))
            field["table"].fail("\"" + table.name + "\" computes 2^frac - y, but \"" + y.name + "\" has the frac " +
                                std::to_string(y.format.frac) + ", must be 0..30");
    }

    void read_affine(Op& op, const Field& field) {
        field.keys({"op", "out", "terms", "bias", "shift"});
        const auto terms = field["terms"].items(1, 64);
        std::optional<Convolution> convolution;  // of the first term; all have the same result
        if (document_.version >= 3 && terms[0].has("conv")) convolution = read_geometry(terms[0]["conv"]);
        op.pixels = convolution ? convolution->pixels() : 1;

        std::vector<std::int32_t> first_row = {0};  // of each gate, and the end
        std::int64_t rows = 0;
        const auto gates = field["out"].items(1, kMaxGates);
        for (const Field& gate : gates) {
            op.out.push_back(look_up(names_, gate, "a path"));
            const Path& out = path(op.out.back());
            if (out.size % op.pixels != 0)
                gate.fail("\"" + out.name + "\" has the size " + std::to_string(out.size) + ", must have a multiple of the " +
                          std::to_string(op.pixels) + " elements of \"result\"");
            rows += out.size / op.pixels;
            if (rows > kMaxSize) field["out"].fail("has more than 2^20 rows");
            first_row.push_back(static_cast<std::int32_t>(rows));
        }
        op.shift = static_cast<int>(field["shift"].integer(0, 40));
        op.bias = tensors_.take_numbers<std::int64_t>(field["bias"], "I64", {rows});
        for (const Field& term : terms) op.terms.push_back(read_term(op, first_row, convolution, term));
        for (const Field& gate : gates) read_result(gate);  // after the terms: an affine cannot read what it writes
        check_affine(op, program_.paths, field);
    }

    // What the codes of a term's weights are worth. Of its keys this sees to that they are those that a term has.
    Levels read_levels(const Field& field) const {
        if (document_.version >= 4 && field.has("levels")) {
            document_.needs.use("levels", field["levels"]);
            field.keys({"in", "gates", "weight", "levels", "multiplier"}, {"scale", "scales", "conv"});
            const std::string& name = field["levels"].name();
            for (const Levels& levels : kLevels)
                if (levels.name == name) return levels;
            field["levels"].fail("\"" + name + "\" is not a level set");
        }
        if (document_.version < 3)
            field.keys({"in", "gates", "weight", "bits", "multiplier"}, {"frac", "scale", "scales"});
        else
            field.keys({"in", "gates", "weight", "bits", "multiplier"}, {"frac", "scale", "scales", "conv"});
        return integers(static_cast<int>(field["bits"].integer(kLeastBits, kMostBits)));
    }

    Term read_term(const Op& op, const std::vector<std::int32_t>& first_row, const std::optional<Convolution>& convolution,
                   const Field& field) {
        Term term;
        term.levels = read_levels(field);
        term.code = look_up(names_, field["in"], "a path");
        const Path& code = path(term.code);
        if (code.role != Role::code)
            field["in"].fail("\"" + code.name + "\" is not one of \"codes\"; requantize it into one");
        use(term.code, field["in"]);

        const auto gates = field["gates"].items(1, op.out.size());
        term.gates = static_cast<int>(gates.size());
        const auto first = std::find(op.out.begin(), op.out.end(), look_up(names_, gates[0], "a path"));
        if (first == op.out.end()) gates[0].fail("is not a gate of this affine");
        term.first_gate = static_cast<int>(first - op.out.begin());
        for (std::size_t i = 0; i < gates.size(); ++i) {
            const std::size_t gate = static_cast<std::size_t>(term.first_gate) + i;
            if (gate >= op.out.size() || path(op.out[gate]).name != gates[i].name())
                gates[i].fail("must be consecutive gates of this affine, in its order");
        }
        const auto begin = static_cast<std::size_t>(term.first_gate);
        term.rows = first_row[begin + gates.size()] - first_row[begin];
        term.columns = code.size;
        if (field.has("conv") != convolution.has_value())
            field.fail("of an affine all terms have a \"conv\", or none has");
        if (convolution) read_convolution(term, *convolution, field["conv"]);

        if (field.has("frac") + field.has("scale") + field.has("scales") != 1)
            field.fail("must have exactly one of \"frac\", \"scale\" and \"scales\"");
        if (field.has("scales")) {
            for (float scale : tensors_.take_numbers<float>(field["scales"], "F32", {term.rows}))
                if (!(scale > 0) || !std::isfinite(scale)) field["scales"].fail("has a scale that is not positive and finite");
        } else if (field.has("levels")) {
            read_scale(field["scale"]);
        } else {
            read_format(field, true, false);
        }
        const std::int64_t row_bytes = (std::int64_t{term.columns} * term.levels.bits + 7) / 8;
        const auto bytes = tensors_.take(field["weight"], "U8", {term.rows, row_bytes});
        term.sums = check_packed(bytes, term.rows, term.columns, term.levels, field["weight"]);
        term.weight.assign(bytes.begin(), bytes.end());
        term.multiplier = tensors_.take_numbers<std::int32_t>(field["multiplier"], "I32", {term.rows});
        return term;
    }

    // ---- Convolutions (7c)

    static Convolution::Pair read_pair(const Field& field, std::int64_t least) {
        const auto pair = field.items(2, 2);
        return {pair[0].integer(least, kMaxSize), pair[1].integer(least, kMaxSize)};
    }

    static Convolution read_geometry(const Field& field) {
        field.keys({"image", "kernel", "stride", "dilation", "padding", "result", "groups"});
        Convolution conv;
        conv.image = read_pair(field["image"], 1);
        conv.kernel = read_pair(field["kernel"], 1);
        conv.stride = read_pair(field["stride"], 1);
        conv.dilation = read_pair(field["dilation"], 1);
        conv.padding = read_pair(field["padding"], 0);
        conv.result = read_pair(field["result"], 1);
        conv.groups = field["groups"].integer(1, kMaxSize);
        for (std::size_t i = 0; i < 2; ++i) {  // height, width: every number is at most 2^20, so their products fit
            const std::string side = i == 0 ? "height: " : "width: ";
            const std::int64_t reach = conv.dilation[i] * (conv.kernel[i] - 1);
            if (conv.padding[i] > reach)
                field["padding"].fail(side + std::to_string(conv.padding[i]) + " is more than dilation * (kernel - 1) = " +
                                      std::to_string(reach));
            if ((conv.result[i] - 1) * conv.stride[i] - conv.padding[i] > conv.image[i] - 1)
                field["result"].fail(side + "a result of " + std::to_string(conv.result[i]) + " begins behind the image of " +
                                     std::to_string(conv.image[i]));
        }
        return conv;
    }

    void read_convolution(Term& term, const Convolution& first, const Field& field) {
        const Convolution conv = read_geometry(field);
        if (conv.result != first.result) field["result"].fail("must be that of the affine's other terms");
        const Path& code = path(term.code);
        const std::int64_t pixels = conv.image[0] * conv.image[1];
        if (code.size % pixels != 0)
            field["image"].fail("has " + std::to_string(pixels) + " elements, of which the " + std::to_string(code.size) +
                                " of \"" + code.name + "\" must be a multiple");
        const std::int64_t channels = code.size / pixels;
        if (channels % conv.groups != 0 || term.rows % conv.groups != 0)
            field["groups"].fail("is " + std::to_string(conv.groups) + ", must divide the " + std::to_string(channels) +
                                 " channels of \"" + code.name + "\" and the " + std::to_string(term.rows) + " of its gates");
        term.convolution = conv;
        term.convolution->group_channels = channels / conv.groups;
        const std::int64_t window = conv.kernel[0] * conv.kernel[1];  // at most 2^40
        if (window > kMaxSize || channels / conv.groups * window > kMaxSize)
            field["kernel"].fail("makes more than 2^20 columns");
        term.columns = static_cast<std::int32_t>(channels / conv.groups * window);
    }

    static constexpr std::size_t kMaxStates = 1 << 16, kMaxGates = 1 << 16;  // every one is also a path

    const Field& field_;
    const std::vector<Source>& inputs_;
    const Document& document_;
    const Names& table_names_;
    Container& tensors_;
    std::vector<Field> input_fields_;  // the paths that receive the inputs
    Program program_;
    Names names_;
    std::vector<char> written_, used_;
};

}  // namespace

Program read_program(const Field& field, const std::vector<Source>& inputs, const Document& document,
                     const Names& table_names, Container& tensors) {
    return ProgramReader(field, inputs, document, table_names, tensors).read();
}

}  // namespace rindle
