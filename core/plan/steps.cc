// What a program node does in a frame: its paths become places, its operations steps, its matrices are packed for the kernel.
#include <algorithm>
#include <cmath>

#include "plan/compiler.h"
#include "kernels/fixed.h"

namespace rindle {
namespace {

// values / 2^shift: exact, for all of them are integers below 2^52
template <class T>
Buffer shifted(const std::vector<T>& values, int shift) {
    std::vector<double> result;
    for (T value : values) result.push_back(std::ldexp(static_cast<double>(value), -shift));
    return buffer_of(result);
}

bool is_state(const Program& program, int path) {
    return std::any_of(program.states.begin(), program.states.end(), [&](auto& pair) { return pair[0] == path; });
}

}  // namespace

void Compiler::program(const Node& node, Stage& stage) {
    const Program& program = node.program;
    places_.clear();
    codes_.assign(program.paths.size(), -1);
    for (const Path& path : program.paths) {
        Place place;
        if (path.role == Role::vector) {
            place.constant = constant(path.constant);
        } else if (const auto input = std::find(program.inputs.begin(), program.inputs.end(), &path - program.paths.data());
                   input != program.inputs.end()) {
            place.offset = out_of(node.inputs[static_cast<std::size_t>(input - program.inputs.begin())]);
        } else if (is_state(program, static_cast<int>(&path - program.paths.data()))) {
            place.offset = remember<std::int16_t>(stage, static_cast<std::size_t>(path.size));
        } else {
            place.offset = allocate<std::int16_t>(static_cast<std::size_t>(path.size));
        }
        places_.push_back(place);
    }
    for (std::size_t i = 0; i < program.states.size(); ++i) {
        const int state = program.states[i][0];
        stage.state.push_back({place(state), size(program, state), limits_of(path(program, state).range)});
        if (!program.initial[i].empty()) stage.initial.push_back({place(state), program.initial[i]});
    }
    for (std::size_t i = 0; i < program.ops.size(); ++i) stage.steps.push_back(step(node, program.ops[i], i));
    results(program, stage);
}

// The frame's end. A value that is itself a state's would be overwritten: it is set aside first.
void Compiler::results(const Program& program, Stage& stage) {
    const auto set_aside = [&](int path) {
        if (!is_state(program, path)) return place(path);
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

Step Compiler::step(const Node& node, const Op& op, std::size_t index) {
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
        case OpKind::affine:
            if (op.terms[0].convolution)
                step.work = convolve(program, op);
            else
                step.work = affine(program, op);
            break;
        case OpKind::requantize: step.work = narrowing(node, op); break;
        case OpKind::clip:
            step.work = Clip{limits_of(op.clip), places_[static_cast<std::size_t>(op.in[0])], place(op.out[0]),
                             size(program, op.out[0])};
            break;
        case OpKind::table: step.work = table(program, op); break;
        default: step.work = elementwise(program, op); break;
    }
    return step;
}

Affine Compiler::affine(const Program& program, const Op& op) {
    Affine affine;
    affine.shift = op.shift;
    std::vector<std::int64_t> bias = op.bias;
    for (std::int64_t& b : bias) b += rounding<std::int64_t>(op.shift);
    affine.bias = buffer_of(bias);
    affine.offset = shifted(bias, op.shift);
    for (const Term& term : op.terms) affine.products.push_back(product(program, term, op.shift));
    std::size_t row = 0;
    for (std::size_t g = 0; g < op.out.size(); ++g) {
        Affine::Gate gate;
        gate.out = place(op.out[g]);
        gate.first_row = row;
        gate.rows = size(program, op.out[g]) / static_cast<std::size_t>(op.pixels);
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

// Of a convolution the matrix is one group's, and nothing is kept from frame to frame.
Affine::Product Compiler::product(const Program& program, const Term& term, int shift) {
    const Kernel& kernel = *model_->kernel;
    const auto groups = term.convolution ? static_cast<std::size_t>(term.convolution->groups) : 1;
    Affine::Product product;
    product.code = codes_[static_cast<std::size_t>(term.code)];
    product.x = place(term.code);
    Matrix& matrix = product.matrix;
    matrix = {term.rows / static_cast<std::int32_t>(groups), term.columns, width_of(term.levels), path(program, term.code).format.bits,
              term.largest >= std::int64_t{1} << 31, nullptr, nullptr};
    most_columns_ = std::max(most_columns_, term.columns);
    const std::size_t group_bytes = aligned(kernel.row_bytes(matrix));
    product.by_row = Buffer(groups * group_bytes);
    Weights weights = {term.weight.data(), term.weight.size() / static_cast<std::size_t>(term.rows), term.levels};
    for (std::size_t g = 0; g < groups; ++g) {
        kernel.pack_rows(matrix, weights, product.by_row.data() + g * group_bytes);
        weights.bytes += static_cast<std::size_t>(matrix.rows) * weights.row_bytes;
    }
    matrix.by_row = product.by_row.data();
    product.by_column = std::make_shared<Columns>();
    weights.bytes = term.weight.data();
    if (path(program, term.code).held && !term.convolution) product.by_column->pack(kernel, matrix, weights);
    product.multiplier = buffer_of(term.multiplier);
    product.ratio = shifted(term.multiplier, shift);
    const auto rows = static_cast<std::size_t>(term.rows);
    product.accumulators = matrix.wide ? allocate<std::int64_t>(rows) : allocate<std::int32_t>(rows);
    return product;
}

Convolve Compiler::convolve(const Program& program, const Op& op) {
    Convolve convolve;
    convolve.affine = affine(program, op);
    convolve.pixels = static_cast<std::size_t>(op.pixels);
    for (const Term& term : op.terms) {
        const Matrix& matrix = convolve.affine.products[convolve.shapes.size()].matrix;
        convolve.shapes.push_back(*term.convolution);
        convolve.group_bytes.push_back(aligned(model_->kernel->row_bytes(matrix)));
        patch_ = std::max(patch_, static_cast<std::size_t>(term.columns));
        group_ = std::max(group_, padded_bytes<std::int64_t>(static_cast<std::size_t>(matrix.rows)));
    }
    for (const Affine::Gate& gate : convolve.affine.gates) pixel_ = std::max(pixel_, gate.rows);
    return convolve;
}

Narrowing Compiler::narrowing(const Node& node, const Op& op) {
    const Path& out = path(node.program, op.out[0]);
    const auto n = static_cast<std::size_t>(out.size);
    Narrowing narrowing = {};
    narrowing.in = places_[static_cast<std::size_t>(op.in[0])];
    narrowing.out = place(op.out[0]);
    narrowing.op.size = n;
    narrowing.op.multiplier = op.multiplier;
    narrowing.op.shift = op.shift;
    narrowing.op.limits = limits_of(out.range);
    narrowing.op.wide = op.multiplier >= 1 << 15 || op.shift > 30;  // M|x| + R < 2^31 otherwise
    narrowing.code = narrowing.held = -1;
    if (out.role != Role::code) return narrowing;
    narrowing.code = static_cast<int>(model_->codes.size());
    codes_[static_cast<std::size_t>(op.out[0])] = narrowing.code;
    model_->codes.push_back({node.name, out.name, n, out.format.bits, limits_of(out.range), narrowing.out,
                             out.held ? buffer_of(out.theta) : Buffer()});
    return narrowing;
}

Elementwise Compiler::elementwise(const Program& program, const Op& op) {
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

TableStep Compiler::table(const Program& program, const Op& op) {
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

}  // namespace rindle
