#include "run/block.h"

#include <algorithm>

namespace rindle {

Block::Block(const Model& model) : model_(&model), starts_(model.clocks.size() + 1), begins_(model.tracks.size()) { clear(); }

void Block::clear() noexcept {
    pieces_.clear();
    for (auto& starts : starts_) starts.assign(1, 0);
}

void Block::add(const Piece& piece) {
    pieces_.push_back(piece);
    std::vector<std::int64_t> made(model_->clocks.size());  // frames of each clock
    for (std::size_t i = 0; i < made.size(); ++i) {
        const Clock& clock = model_->clocks[i];
        made[i] = i == 0 ? static_cast<std::int64_t>(piece.frames) : clock.window.frames(made[static_cast<std::size_t>(clock.parent)]);
        starts_[i + 1].push_back(starts_[i + 1].back() + made[i]);
    }
    starts_[0].push_back(starts_[0].back() + (piece.last ? 1 : 0));
}

std::size_t Block::bytes() const noexcept {
    constexpr std::size_t kMost = PTRDIFF_MAX;
    std::size_t bytes = aligned(model_->records) + model_->vectors_scratch;
    for (const Track& track : model_->tracks) {
        const auto count = static_cast<std::size_t>(starts(track.clock).back());
        if (count > (kMost - kAlignment - bytes) / track.bytes) return SIZE_MAX;
        bytes += aligned(count * track.bytes);
    }
    return bytes;
}

bool Block::reserve(std::size_t bytes) noexcept {
    memory_.reset();
    if (bytes > PTRDIFF_MAX) return false;
    memory_.reset(static_cast<std::byte*>(::operator new[](std::max<std::size_t>(bytes, 1), std::align_val_t{kAlignment}, std::nothrow)));
    return memory_ != nullptr;
}

void Block::place() noexcept {
    tracks_ = 0;
    for (std::size_t i = 0; i < begins_.size(); ++i) {
        begins_[i] = tracks_;
        const Track& track = model_->tracks[i];
        tracks_ += aligned(static_cast<std::size_t>(starts(track.clock).back()) * track.bytes);
    }
}

bool Rows::next(Block& block) {
    block.clear();
    std::size_t room = model_.block_frames;
    while (row_ < batch_ && room > 0) {
        const std::size_t left = (lengths_ ? static_cast<std::size_t>(lengths_[row_]) : frames_) - at_;
        std::size_t taken = left;
        if (left > room) {
            if (!block.pieces().empty()) break;
            if (!model_.whole_rows) taken = room;
        }
        block.add({row_, at_, taken, at_ == 0, taken == left});
        room -= std::min(room, taken);
        at_ += taken;
        if (taken == left) ++row_, at_ = 0;
    }
    return !block.pieces().empty();
}

}  // namespace rindle
