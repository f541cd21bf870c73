#include "program.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "fixed.h"

namespace rindle {
namespace {

std::size_t aligned(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

template <class T>
std::size_t padded_bytes(std::size_t count) {
    return aligned((count + kPadding - 1) / kPadding * kPadding * sizeof(T));
}

template <class T>
Buffer buffer_of(const std::vector<T>& values) {
    Buffer buffer(padded_bytes<T>(values.size()));
    if (!values.empty()) std::memcpy(buffer.data(), values.data(), values.size() * sizeof(T));
    return buffer;
}

Limits limits_of(const Range& range) { return {range.lo, range.hi}; }

class Compiler {
  public:
    Compiler(Document& document, const Kernel& kernel) : document_(document), model_(std::make_unique<Model>()) {
        model_->kernel = &kernel;
    }

    std::unique_ptr<Model> compile() {
        const Node& output = document_.nodes[static_cast<std::size_t>(document_.output)];
        model_->id = document_.id;
        model_->input_size = static_cast<std::size_t>(document_.input_size);
        model_->input_format = document_.input_format;
        model_->input_range = document_.input_range;
        model_->output_size = static_cast<std::size_t>(output.size);
        model_->output_format = output.format;
        model_->output_range = output.range;
        model_->output_is_sequence = output.sequence;
        model_->golden = std::move(document_.golden);
        model_->saturations.push_back({"input", "input", "input", -1});
        model_->vocabulary = document_.vocabulary;
        model_->by_node = std::any_of(document_.nodes.begin(), document_.nodes.end(), [](const Node& node) {
            return node.reverse || node.kind == NodeKind::first;
        });
        model_->input = model_->vocabulary ? allocate<std::int32_t>(1) : allocate<std::int16_t>(model_->input_size);
        model_->input_track = track(model_->input, model_->vocabulary ? sizeof(std::int32_t)
                                                                      : model_->input_size * sizeof(std::int16_t));
        for (Node& node : document_.nodes) {
            stage(node);
            node.program = {};  // its weights are packed now
            node.rows = {};
        }
        model_->scratch = allocate<std::byte>(scratch_bytes(static_cast<std::size_t>(most_columns_)));
        model_->output = stage_of(document_.output).out;
        model_->output_track = stage_of(document_.output).track;
        for (const Memory& memory : model_->state) model_->state_values += memory.size;
        return std::move(model_);
    }

  private:
    template <class T>
    std::size_t allocate(std::size_t count) {
        const std::size_t offset = model_->memory;
        model_->memory += padded_bytes<T>(count);
        return offset;
    }

    Track track(std::size_t place, std::size_t bytes) {
        const std::size_t begin = model_->frame_bytes;
        model_->frame_bytes += bytes;
        return {place, begin, bytes};
    }

    const Stage& stage_of(int node) const { return model_->stages[static_cast<std::size_t>(node)]; }

    void not_causal(const Node& node, const char* why) {
        if (!model_->not_causal.empty()) return;
        model_->not_causal = node.name;
        model_->why_not_causal = why;
    }

    void stage(const Node& node) {
        Stage stage;
        stage.kind = node.kind;
        stage.sequence = node.sequence;
        stage.reverse = node.reverse;
        stage.size = static_cast<std::size_t>(node.size);
        for (int input : node.inputs) {
            if (input == kModelInput)
                stage.reads.push_back(model_->input_track);
            else if (document_.nodes[static_cast<std::size_t>(input)].sequence)
                stage.reads.push_back(stage_of(input).track);
        }
        stage.in = node.inputs[0] == kModelInput ? model_->input : stage_of(node.inputs[0]).out;
        switch (node.kind) {
            case NodeKind::program:
                program(node, stage);
                if (node.reverse) not_causal(node, "reads the sequence from its end");
                break;
            case NodeKind::last: stage.out = model_->by_node ? allocate<std::int16_t>(stage.size) : stage.in; break;
            case NodeKind::first:
                stage.out = allocate<std::int16_t>(stage.size);
                not_causal(node, "keeps the first frame");
                break;
            case NodeKind::mean:
                stage.sums = allocate<std::int64_t>(stage.size);
                stage.out = allocate<std::int16_t>(stage.size);
                not_causal(node, "averages over the whole sequence");
                break;
            case NodeKind::concat: concat(node, stage); break;
            case NodeKind::embedding:
                stage.out = allocate<std::int16_t>(stage.size);
                stage.rows = buffer_of(node.rows);
                stage.bits = node.format.bits;
                break;
        }
        if (stage.sequence) stage.track = track(stage.out, stage.size * sizeof(std::int16_t));
        model_->stages.push_back(std::move(stage));
    }

    void concat(const Node& node, Stage& stage) {
        stage.out = allocate<std::int16_t>(stage.size);
        std::size_t to = stage.out;
        for (int input : node.inputs) {
            const bool model_input = input == kModelInput;
            const std::size_t size = model_input ? model_->input_size : stage_of(input).size;
            stage.copies.push_back({model_input ? model_->input : stage_of(input).out, to, size});
            to += size * sizeof(std::int16_t);
        }
    }

    void program(const Node& node, Stage& stage) {
        const Program& program = node.program;
        places_.clear();
        held_.assign(program.paths.size(), -1);
        for (const Path& path : program.paths) {
            Place place;
            if (path.role == Role::vector) {
                place.constant = constant(path.constant);
            } else if (&path - program.paths.data() == program.input) {
                place.offset = stage.in;
            } else {
                place.offset = allocate<std::int16_t>(static_cast<std::size_t>(path.size));
            }
            places_.push_back(place);
        }
        for (const auto& [state, next] : program.states)
            model_->state.push_back({place(state), size(program, state), limits_of(path(program, state).range)});
        for (std::size_t i = 0; i < program.ops.size(); ++i) stage.steps.push_back(step(node, program.ops[i], i, stage));
        results(program, stage);
    }

    // The frame's end. A value that is itself a state's would be overwritten: it is set aside first.
    void results(const Program& program, Stage& stage) {
        const auto is_state = [&](int path) {
            return std::any_of(program.states.begin(), program.states.end(), [&](auto& pair) { return pair[0] == path; });
        };
        const auto set_aside = [&](int path) {
            if (!is_state(path)) return place(path);
            const std::size_t aside = allocate<std::int16_t>(size(program, path));
            stage.copies.push_back({place(path), aside, size(program, path)});
            return aside;
        };
        stage.out = set_aside(program.output);
        std::vector<Copy> updates;
        for (const auto& [state, next] : program.states)
            updates.push_back({set_aside(next), place(state), size(program, state)});
        stage.copies.insert(stage.copies.end(), updates.begin(), updates.end());
    }

    static const Path& path(const Program& program, int index) { return program.paths[static_cast<std::size_t>(index)]; }
    static std::size_t size(const Program& program, int index) {
        return static_cast<std::size_t>(path(program, index).size);
    }
    std::size_t place(int index) const { return places_[static_cast<std::size_t>(index)].offset; }

    Step step(const Node& node, const Op& op, std::size_t index, Stage& stage) {
        const Program& program = node.program;
        Step step;
        if (op.kind != OpKind::clip && op.kind != OpKind::table) {
            step.saturations = static_cast<int>(model_->saturations.size());
            std::string names;
            for (int out : op.out) names += (names.empty() ? "" : " ") + path(program, out).name;
            model_->saturations.push_back(
                {node.name, names, kOpNames[static_cast<std::size_t>(op.kind)], static_cast<int>(index)});
        }
        switch (op.kind) {
            case OpKind::affine: step.work = affine(program, op); break;
            case OpKind::requantize: step.work = narrowing(node, op, stage); break;
            case OpKind::clip:
                step.work = Clip{limits_of(op.clip), places_[static_cast<std::size_t>(op.in[0])], place(op.out[0]),
                                 size(program, op.out[0])};
                break;
            case OpKind::table: step.work = table(program, op); break;
            default: step.work = elementwise(program, op); break;
        }
        return step;
    }

    template <class T>
    const T* constant(const std::vector<T>& values) {
        model_->constants.push_back(buffer_of(values));
        return model_->constants.back().template as<T>();
    }

    // values / 2^shift: exact, for all of them are integers below 2^52
    template <class T>
    static Buffer shifted(const std::vector<T>& values, int shift) {
        std::vector<double> result;
        for (T value : values) result.push_back(std::ldexp(static_cast<double>(value), -shift));
        return buffer_of(result);
    }

    Affine affine(const Program& program, const Op& op) {
        const Kernel& kernel = *model_->kernel;
        Affine affine;
        affine.shift = op.shift;
        std::vector<std::int64_t> bias = op.bias;
        for (std::int64_t& b : bias) b += rounding<std::int64_t>(op.shift);
        affine.bias = buffer_of(bias);
        affine.offset = shifted(bias, op.shift);
        for (const Term& term : op.terms) {
            Affine::Product product;
            product.held = held_[static_cast<std::size_t>(term.code)];
            product.x = product.held < 0 ? place(term.code) : model_->held[static_cast<std::size_t>(product.held)].held;
            Matrix& matrix = product.matrix;
            matrix = {term.rows, term.columns, term.bits, path(program, term.code).format.bits,
                      term.largest >= std::int64_t{1} << 31, nullptr, nullptr};
            most_columns_ = std::max(most_columns_, term.columns);
            product.by_row = Buffer(kernel.row_bytes(matrix));
            kernel.pack_rows(matrix, term.weight.data(), product.by_row.data());
            matrix.by_row = product.by_row.data();
            if (product.held >= 0) {
                product.by_column = Buffer(kernel.column_bytes(matrix));
                kernel.pack_columns(matrix, term.weight.data(), product.by_column.data());
                matrix.by_column = product.by_column.data();
            }
            product.multiplier = buffer_of(term.multiplier);
            product.ratio = shifted(term.multiplier, op.shift);
            const auto rows = static_cast<std::size_t>(term.rows);
            product.accumulators = matrix.wide ? allocate<std::int64_t>(rows) : allocate<std::int32_t>(rows);
            affine.products.push_back(std::move(product));
        }
        std::size_t row = 0;
        for (std::size_t g = 0; g < op.out.size(); ++g) {
            Affine::Gate gate;
            gate.out = place(op.out[g]);
            gate.first_row = row;
            gate.rows = size(program, op.out[g]);
            gate.limits = limits_of(path(program, op.out[g]).range);
            affine.gates.push_back(std::move(gate));
            row += affine.gates.back().rows;
        }
        for (std::size_t t = 0; t < op.terms.size(); ++t) {
            const auto first = static_cast<std::size_t>(op.terms[t].first_gate);
            for (std::size_t g = first; g < first + static_cast<std::size_t>(op.terms[t].gates); ++g)
                affine.gates[g].shares.push_back({t, affine.gates[g].first_row - affine.gates[first].first_row});
        }
        return affine;
    }

    Narrowing narrowing(const Node& node, const Op& op, Stage& stage) {
        const Path& out = path(node.program, op.out[0]);
        const auto n = static_cast<std::size_t>(out.size);
        Narrowing narrowing = {};
        narrowing.in = places_[static_cast<std::size_t>(op.in[0])];
        narrowing.out = place(op.out[0]);
        narrowing.held = -1;
        narrowing.op.size = n;
        narrowing.op.multiplier = op.multiplier;
        narrowing.op.shift = op.shift;
        narrowing.op.limits = limits_of(out.range);
        narrowing.op.wide = op.multiplier >= 1 << 15 || op.shift > 30;  // M|x| + R < 2^31 otherwise
        if (!out.held) return narrowing;

        Held held;
        held.node = node.name;
        held.path = out.name;
        held.size = n;
        held.bits = out.format.bits;
        held.now = narrowing.out;
        held.held = allocate<std::int16_t>(n);
        held.index = allocate<std::int32_t>(2 * n);
        held.delta = allocate<std::int16_t>(2 * n);
        held.theta = buffer_of(out.theta);
        narrowing.held = static_cast<int>(model_->held.size());
        held_[static_cast<std::size_t>(op.out[0])] = narrowing.held;
        // A program that runs once per row begins with v-hat = 0 each time: its v-hat is never kept.
        model_->state.push_back({held.held, n, stage.sequence ? limits_of(out.range) : Limits{0, 0}});
        if (!stage.sequence) stage.held.push_back(static_cast<std::size_t>(narrowing.held));
        model_->held.push_back(std::move(held));
        return narrowing;
    }

    Elementwise elementwise(const Program& program, const Op& op) {
        const Kernel& kernel = *model_->kernel;
        Elementwise step = {};
        step.run = op.kind == OpKind::add               ? kernel.add
                   : op.kind == OpKind::sub             ? kernel.sub
                   : op.kind == OpKind::mul             ? kernel.mul
                   : op.kind == OpKind::sum_of_products ? kernel.sum_of_products
                                                        : kernel.lerp;
        step.operands = static_cast<int>(op.in.size());
        for (std::size_t i = 0; i < op.in.size(); ++i) step.in[i] = places_[static_cast<std::size_t>(op.in[i])];
        step.out = place(op.out[0]);
        step.op.size = size(program, op.out[0]);
        step.op.left[0] = op.alignment.left[0];
        step.op.left[1] = op.alignment.left[1];
        step.op.shift = op.alignment.shift;
        step.op.one_bits = op.kind == OpKind::lerp ? path(program, op.in[0]).format.frac : 0;
        step.op.limits = limits_of(path(program, op.out[0]).range);
        step.op.wide = op.alignment.worst >= 2147483648.0;
        return step;
    }

    TableStep table(const Program& program, const Op& op) {
        const Table& table = document_.tables[static_cast<std::size_t>(op.table)];
        const Path& out = path(program, op.out[0]);
        std::vector<std::int16_t> base = table.base, slope = table.slope;
        slope.resize(base.size());
        std::vector<Segment> segments;
        for (std::size_t i = 0; i < base.size(); ++i) segments.push_back({base[i], slope[i]});
        base.resize(std::max(base.size(), kTableRoom));
        slope.resize(base.size());
        TableStep step = {};
        step.op.last = (static_cast<std::int32_t>(segments.size()) << table.p) - 1;  // below 2^23
        step.op.segments = constant(segments);
        step.op.base = constant(base);
        step.op.slope = constant(slope);
        step.in = places_[static_cast<std::size_t>(op.in[0])];
        step.out = place(op.out[0]);
        step.size = static_cast<std::size_t>(out.size);
        // Beyond these, every x of 16 bits is at one end of the table; within, x - x0 fits int32.
        step.op.x0 = sat<std::int32_t>(table.x0, -32768 - step.op.last, 32768);
        step.op.p = table.p;
        step.op.q = table.q;
        step.op.degree = table.degree;
        step.op.symmetry = static_cast<int>(table.symmetry);
        step.op.mirror = 1 << sat(out.format.frac, 0, 20);  // from 2^17 on, 2^f - y is above every code
        step.op.limits = limits_of(out.range);
        return step;
    }

    Document& document_;
    std::unique_ptr<Model> model_;
    std::vector<Place> places_;  // of the paths of the program at hand
    std::int32_t most_columns_ = 0;
    std::vector<int> held_;      // its held paths: index into Model::held, or -1
};

}  // namespace

Buffer::Buffer(std::size_t bytes) : size_(aligned(bytes)) {
    if (size_ == 0) return;
    data_.reset(static_cast<std::byte*>(::operator new[](size_, std::align_val_t{kAlignment})));
    std::memset(data_.get(), 0, size_);
}

std::unique_ptr<Model> compile(Document document, const Kernel& kernel) { return Compiler(document, kernel).compile(); }

}  // namespace rindle
