#include "run/stream.h"

#include <cstring>

#include "kernels/fixed.h"
#include "file/tensors.h"

namespace rindle {

Stream::Stream(std::shared_ptr<const Model> model)
    : model_(std::move(model)),
      memory_(model_->memory),
      entries_(model_->held.size()),
      activity_(model_->held.size()),
      saturations_(model_->saturations.size()),
      input_reciprocal_(static_cast<float>(1 / model_->input_format.scale)) {
    reset();
}

void Stream::reset() noexcept {
    std::memset(memory_.data(), 0, memory_.size());
    for (const Stage& stage : model_->stages) begin(stage);
    stale_ = false;
}

// Initial states, into memory of zeros
void Stream::begin(const Stage& stage) noexcept {
    for (const Initial& initial : stage.initial)
        std::memcpy(at<std::int16_t>(initial.offset), initial.codes.data(), initial.codes.size() * sizeof(std::int16_t));
}

// ---- Input and output

void Stream::code(const float* x, std::size_t frames, std::byte* to) noexcept {
    const Range& range = model_->input_range;
    saturations_[0] += model_->kernel->encode(x, input_reciprocal_, {range.lo, range.hi}, reinterpret_cast<std::int16_t*>(to),
                                              frames * model_->input_size);
}

void Stream::code(const std::int16_t* codes, std::size_t frames, std::byte* to) noexcept {
    std::memcpy(to, codes, frames * model_->input_size * sizeof *codes);
}

void Stream::code(const std::int32_t* ids, std::size_t frames, std::byte* to) noexcept { std::memcpy(to, ids, frames * sizeof *ids); }

void Stream::value(const std::byte* from, std::size_t frames, float* y) const noexcept {
    const std::size_t size = frames * model_->output_size;
    if (model_->output_is_float) {
        std::memcpy(y, from, size * sizeof *y);
        return;
    }
    const auto* codes = reinterpret_cast<const std::int16_t*>(from);
    const double scale = model_->output_format.scale;
    for (std::size_t i = 0; i < size; ++i) y[i] = decode(codes[i], scale);
}

void Stream::value(const std::byte* from, std::size_t frames, std::int16_t* codes) const noexcept {
    std::memcpy(codes, from, frames * model_->output_size * sizeof *codes);
}

// ---- A frame

// A block of one frame, which stays at the places themselves. The row may end with it, so that vectors are computed, too.
void Stream::step() noexcept {
    for (const Stage& stage : model_->stages) {
        if (stage.kind == NodeKind::window) {
            slide(stage, {at<std::byte>(stage.in), stage.size / static_cast<std::size_t>(stage.window.size) * sizeof(std::int16_t), 1},
                  {at<std::byte>(stage.out), stage.size * sizeof(std::int16_t), 1});
            continue;
        }
        run(stage);
        if (!stage.sequence) forget(stage);
    }
    stale_ = false;
}

void Stream::run(const Stage& stage) noexcept {
    switch (stage.kind) {
        case NodeKind::embedding: return look_up(stage);
        case NodeKind::gather: return gather(stage);
        case NodeKind::floating: return evaluate(stage);
        default: break;
    }
    for (const Step& step : stage.steps)
        count(step, std::visit([this](const auto& work) noexcept { return run(work); }, step.work));
    copy(stage);
}

void Stream::copy(const Stage& stage) noexcept {
    for (const Copy& copy : stage.copies)
        std::memcpy(at<std::int16_t>(copy.to), at<std::int16_t>(copy.from), copy.count * sizeof(std::int16_t));
}

// As before a row.
void Stream::forget(const Stage& stage) noexcept {
    for (const std::vector<Region>* regions : {&stage.memory, &stage.held})
        for (const Region& region : *regions) std::memset(at<std::byte>(region.offset), 0, region.bytes);
    begin(stage);
}

template <bool in_block>
std::size_t Stream::run(const Affine& affine) noexcept {
    for (const Affine::Product& product : affine.products)
        if (!in_block || !product.known) accumulate(product);
    std::size_t outside = 0;
    for (const Affine::Gate& gate : affine.gates) outside += finish(affine, gate, at<std::int16_t>(gate.out));
    return outside;
}

template std::size_t Stream::run<true>(const Affine& affine) noexcept;

// (7) from the accumulators, for the rows of one gate
std::size_t Stream::finish(const Affine& affine, const Affine::Gate& gate, std::int16_t* out) noexcept {
    Product products[64];
    int count = 0;
    for (const Affine::Share& share : gate.shares) {
        const Affine::Product& product = affine.products[share.product];
        const std::size_t width = product.matrix.wide ? sizeof(std::int64_t) : sizeof(std::int32_t);
        products[count++] = {at<std::byte>(product.accumulators) + share.first_row * width,
                             product.multiplier.as<std::int32_t>() + share.first_row,
                             product.ratio.as<double>() + share.first_row, product.matrix.wide};
    }
    return model_->kernel->finish({products, count, affine.bias.as<std::int64_t>() + gate.first_row,
                                   affine.offset.as<double>() + gate.first_row, affine.shift, gate.limits, out, gate.rows});
}

// acc = W x. Of a held path the accumulators are those of the last frame, so adding what changed is the same, and
// cheaper where little did.
void Stream::accumulate(const Affine::Product& product) noexcept {
    const Kernel& kernel = *model_->kernel;
    const Matrix& matrix = product.matrix;
    void* accumulators = at<std::byte>(product.accumulators);
    if (product.held >= 0 && !stale_) {
        const Held& held = model_->held[static_cast<std::size_t>(product.held)];
        const std::int32_t entries = entries_[static_cast<std::size_t>(product.held)];
        if (entries != kNoList) {
            kernel.add_columns(matrix, at<std::int32_t>(held.index), at<std::int16_t>(held.delta), entries, accumulators,
                               at<std::byte>(model_->scratch));
            return;
        }
    }
    kernel.multiply(matrix, at<std::int16_t>(product.x), accumulators, at<std::byte>(model_->scratch));
}

std::size_t Stream::run(const Narrowing& narrowing) noexcept {
    Requantize op = narrowing.op;
    op.in = at(narrowing.in);
    op.out = at<std::int16_t>(narrowing.out);
    const std::size_t outside = model_->kernel->requantize(op);
    if (narrowing.held >= 0) {
        const auto index = static_cast<std::size_t>(narrowing.held);
        const Held& held = model_->held[index];
        const Changes changes = model_->kernel->hold(
            at<std::int16_t>(held.now), held.theta.as<std::int16_t>(), at<std::int16_t>(held.held),
            at<std::int32_t>(held.index), at<std::int16_t>(held.delta), held.size, held.bits);
        entries_[index] = changes.entries;
        activity_[index].frames += 1;
        activity_[index].changed += static_cast<std::uint64_t>(changes.elements);
    }
    return outside;
}

std::size_t Stream::run(const Elementwise& elementwise) noexcept {
    Sum op = elementwise.op;
    for (int i = 0; i < elementwise.operands; ++i) op.in[i] = at(elementwise.in[i]);
    op.out = at<std::int16_t>(elementwise.out);
    return elementwise.run(op);
}

std::size_t Stream::run(const Clip& clip) noexcept {
    model_->kernel->clip(at(clip.in), clip.limits, at<std::int16_t>(clip.out), clip.size);
    return 0;
}

std::size_t Stream::run(const TableStep& table) noexcept {
    model_->kernel->lookup(table.op, at(table.in), at<std::int16_t>(table.out), table.size);
    return 0;
}

// ---- Saved state

void Stream::save(std::byte* values) const noexcept {
    for (const Memory& memory : model_->state) {
        const std::int16_t* codes = at<std::int16_t>(memory.offset);
        const std::size_t oldest = memory.oldest ? static_cast<std::size_t>(*at<std::int64_t>(*memory.oldest)) : 0;
        for (std::size_t i = 0; i < memory.size; ++i, values += sizeof(std::int16_t))
            write_little(values, codes[i < memory.size - oldest ? oldest + i : oldest + i - memory.size]);
    }
}

bool Stream::restore(const std::byte* values) noexcept {
    const std::byte* value = values;
    for (const Memory& memory : model_->state)
        for (std::size_t i = 0; i < memory.size; ++i, value += sizeof(std::int16_t)) {
            const auto code = read_little<std::int16_t>(value);
            if (code < memory.limits.lo || code > memory.limits.hi) return false;
        }
    reset();  // and so every ring begins at its start
    for (const Memory& memory : model_->state)
        for (std::size_t i = 0; i < memory.size; ++i, values += sizeof(std::int16_t))
            at<std::int16_t>(memory.offset)[i] = read_little<std::int16_t>(values);
    stale_ = true;
    return true;
}

void Stream::reset_counters() noexcept {
    for (Activity& activity : activity_) activity = {};
    for (std::uint64_t& count : saturations_) count = 0;
}

}  // namespace rindle
