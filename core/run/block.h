// The frames that a model's stages take at once: of a few short rows, or a piece of a long one.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "plan/model.h"

namespace rindle {

// A row's share of a block: `frames` of the model's input, from frame `begin` on.
struct Piece {
    std::size_t row = 0, begin = 0, frames = 0;
    bool first = true, last = true;  // the row begins or ends with it
};

// A track's frames in one piece.
struct Frames {
    std::byte* first;
    std::size_t bytes;  // of one
    std::int64_t count;

    std::byte* operator[](std::int64_t t) const noexcept { return first + static_cast<std::size_t>(t) * bytes; }
};

// Aligned memory whose contents are whatever they are; none where there is not enough.
struct FreeAligned {
    void operator()(std::byte* memory) const noexcept { ::operator delete[](memory, std::align_val_t{kAlignment}); }
};
using RawMemory = std::unique_ptr<std::byte[], FreeAligned>;

class Block {
  public:
    explicit Block(const Model& model);

    // Pieces, and then the memory for them
    void clear() noexcept;
    void add(const Piece& piece);
    std::size_t bytes() const noexcept;  // SIZE_MAX where no machine has them
    // Takes enough for blocks of so many bytes, if there is enough.
    bool reserve(std::size_t bytes) noexcept;
    void place() noexcept;               // lays the tracks of the pieces out in that memory

    const std::vector<Piece>& pieces() const noexcept { return pieces_; }
    Frames frames(int track, std::size_t piece) const noexcept {
        const Track& of = model_->tracks[static_cast<std::size_t>(track)];
        return {all(track)[starts(of.clock)[piece]], of.bytes, starts(of.clock)[piece + 1] - starts(of.clock)[piece]};
    }
    // Of all pieces
    Frames all(int track) const noexcept {
        const Track& of = model_->tracks[static_cast<std::size_t>(track)];
        return {memory_.get() + begins_[static_cast<std::size_t>(track)], of.bytes, starts(of.clock).back()};
    }
    // The frames of a clock that stand before each piece; at the end, all of them.
    const std::vector<std::int64_t>& starts(int clock) const noexcept { return starts_[static_cast<std::size_t>(clock + 1)]; }

    // What passes keep, and the memory of the kernel meanwhile.
    std::byte* records() const noexcept { return memory_.get() + tracks_; }
    std::byte* scratch() const noexcept { return records() + aligned(model_->records); }

  private:
    static constexpr std::size_t aligned(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

    const Model* model_;
    std::vector<Piece> pieces_;
    std::vector<std::vector<std::int64_t>> starts_;  // of kOncePerRow, and then of each clock
    std::vector<std::size_t> begins_;                // bytes before each track's frames
    std::size_t tracks_ = 0;                         // bytes of all tracks
    RawMemory memory_;
};

// Cuts rows into blocks of up to Model::block_frames frames: short rows stand side by side; a long one is cut, or where the model
// needs it whole a block of its own.
class Rows {
  public:
    // `lengths` [batch], or nullptr where all have so many frames
    Rows(const Model& model, std::size_t batch, std::size_t frames, const std::int32_t* lengths)
        : model_(model), batch_(batch), frames_(frames), lengths_(lengths) {}

    bool next(Block& block);  // false, and the block is empty, when all rows have been there
    void rewind() noexcept { row_ = at_ = 0; }

  private:
    const Model& model_;
    std::size_t batch_, frames_;
    const std::int32_t* lengths_;
    std::size_t row_ = 0, at_ = 0;  // the next frame
};

}  // namespace rindle
