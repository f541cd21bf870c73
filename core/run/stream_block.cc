// A block of frames, stage by stage. A stage computes at its places, as in a single frame: its inputs are brought there and its
// value taken away; what it does alone is to put the products that know no state together, over many frames.
#include <algorithm>
#include <cstring>
#include <type_traits>

#include "run/stream.h"

namespace rindle {
namespace {

// The frames of a stage over all pieces of a block, in the order in which it takes them.
class Walk {
  public:
    Walk(const Block& block, const Model& model, const Stage& stage)
        : block_(&block), starts_(&block.starts(model.tracks[static_cast<std::size_t>(stage.track)].clock)), stage_(&stage) {
        skip();
    }
    std::int64_t at() const noexcept {  // of all frames in the track
        return stage_->reverse ? (*starts_)[piece_ + 1] - 1 - done_ : (*starts_)[piece_] + done_;
    }
    bool begins() const noexcept {  // a row, of frames; a vector has no frame before it
        return !stage_->sequence || (done_ == 0 && block_->pieces()[piece_].first);
    }
    void next() noexcept {
        ++done_;
        skip();
    }

  private:
    void skip() noexcept {
        while (piece_ < block_->pieces().size() && done_ == (*starts_)[piece_ + 1] - (*starts_)[piece_]) ++piece_, done_ = 0;
    }

    const Block* block_;
    const std::vector<std::int64_t>* starts_;
    const Stage* stage_;
    std::size_t piece_ = 0;
    std::int64_t done_ = 0;
};

}  // namespace

void Stream::run(const Block& block) noexcept {
    for (const Stage& stage : model_->stages) {
        const bool of_frames = model_->tracks[static_cast<std::size_t>(stage.reads[0])].clock != kOncePerRow;
        stage.kind == NodeKind::window || stage.sequence != of_frames ? run_pieces(stage, block) : run_frames(stage, block);
    }
}

// Nodes that read several frames for one
void Stream::run_pieces(const Stage& stage, const Block& block) noexcept {
    for (std::size_t piece = 0; piece < block.pieces().size(); ++piece) {
        const Frames x = block.frames(stage.reads[0], piece), y = block.frames(stage.track, piece);
        const bool first = block.pieces()[piece].first;
        if (first) forget(stage);
        switch (stage.kind) {
            case NodeKind::window: slide(stage, x, y); break;
            case NodeKind::first: take_first(stage, x, y, first); break;
            case NodeKind::mean: average(stage, x, y); break;
            case NodeKind::max: find_largest(stage, x, y, first); break;
            case NodeKind::floating: attend(stage, x, block.frames(stage.reads[1], piece), y); break;
            default:  // last
                if (y.count > 0) std::memcpy(y[0], x[x.count - 1], y.bytes);
        }
    }
}

void Stream::run_frames(const Stage& stage, const Block& block) noexcept {
    Walk walk(block, *model_, stage);
    const auto total = static_cast<std::size_t>(block.all(stage.track).count);
    for (std::size_t done = 0; done < total; done += stage.most_frames) {
        const std::size_t count = std::min(stage.most_frames, total - done);
        const Walk begin = walk;
        for (const Pass& pass : stage.passes) {
            const bool last = &pass == &stage.passes.back();
            walk = begin;
            for (std::size_t i = 0; i < count; ++i, walk.next()) {
                std::byte* record = block.records() + i * stage.record;
                if (last && walk.begins()) forget(stage);
                for (const int read : stage.reads) {
                    const Frames x = block.all(read);
                    std::memcpy(at<std::byte>(model_->tracks[static_cast<std::size_t>(read)].place), x[walk.at()], x.bytes);
                }
                for (const Kept& kept : pass.load) std::memcpy(at<std::byte>(kept.region.offset), record + kept.record, kept.region.bytes);
                if (stage.kind == NodeKind::program)
                    run_steps(stage, pass);
                else
                    run(stage);
                for (const Kept& kept : pass.save) std::memcpy(record + kept.record, at<std::byte>(kept.region.offset), kept.region.bytes);
                if (!last) continue;
                if (stage.kind == NodeKind::program) copy(stage);
                const Frames y = block.all(stage.track);
                std::memcpy(y[walk.at()], at<std::byte>(stage.out), y.bytes);
            }
            for (const Pass::Known& known : pass.products) multiply(known, stage, count, block);
        }
    }
}

void Stream::run_steps(const Stage& stage, const Pass& pass) noexcept {
    for (const std::size_t step : pass.steps)
        count(stage.steps[step], std::visit([this](const auto& work) noexcept {
            if constexpr (std::is_same_v<std::decay_t<decltype(work)>, Affine>)
                return run<true>(work);
            else
                return run(work);
        }, stage.steps[step].work));
}

void Stream::multiply(const Pass::Known& known, const Stage& stage, std::size_t count, const Block& block) const noexcept {
    const Affine::Product& product = std::get_if<Affine>(&stage.steps[known.step].work)->products[known.product];
    std::byte* records = block.records();
    model_->kernel->multiply_vectors(product.matrix,
                                     {reinterpret_cast<const std::int16_t*>(records + known.code), stage.record / sizeof(std::int16_t),
                                      records + known.accumulators, stage.record, count},
                                     block.scratch());
}

}  // namespace rindle
