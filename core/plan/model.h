// A model ready to run: every path resolved to a place in a stream's memory, every matrix packed for one kernel.
#pragma once

#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "file/document.h"
#include "kernels/kernels.h"

namespace rindle {

// Zeroed, aligned memory. Copies share it.
class Buffer {
  public:
    explicit Buffer(std::size_t bytes = 0);
    std::byte* data() const noexcept { return data_.get(); }
    std::size_t size() const noexcept { return size_; }
    template <class T>
    T* as() const noexcept {
        return reinterpret_cast<T*>(data_.get());
    }

  private:
    struct Free {
        void operator()(std::byte* p) const noexcept { ::operator delete[](p, std::align_val_t{kAlignment}); }
    };
    std::shared_ptr<std::byte[]> data_;
    std::size_t size_;
};

// Where int16 codes are: a constant of the model, or bytes into the memory of each stream.
struct Place {
    const std::int16_t* constant = nullptr;
    std::size_t offset = 0;
};

// A code path, which may be held (20).
struct Code {
    std::string node, path;
    std::size_t size = 0;
    int bits = 0;
    Limits limits = {};
    std::size_t now = 0;                // int16: v
    Buffer theta;                       // int16; empty where the path is not held
};

struct Held : Code {
    std::size_t held = 0;               // int16: v-hat
    std::size_t index = 0, delta = 0;   // the list of changes: int32 and int16
};

// A matrix packed by column. Models that differ in thresholds alone share it, and it is made when the first of them holds the
// code that the matrix is multiplied with.
class Columns {
  public:
    void pack(const Kernel& kernel, const Matrix& matrix, const Weights& weights);
    // Packs what has not been packed yet, from the layout by row. For any number of threads.
    const void* of(const Kernel& kernel, const Matrix& matrix);

  private:
    std::mutex mutex_;
    Buffer packed_;
};

struct Affine {                         // (7)
    struct Product {
        Matrix matrix;
        Buffer by_row, multiplier, ratio;
        std::shared_ptr<Columns> by_column;
        int code = -1;                  // index into Model::codes
        std::size_t x = 0;              // int16: the code path, or v-hat of a held one
        int held = -1;                  // index into Model::held
        bool known = false;             // its code depends on no state: in a block it is multiplied for many frames at once
        std::size_t accumulators = 0;
    };
    struct Share {                      // of one product in one gate
        std::size_t product, first_row;
    };
    struct Gate {
        std::size_t out = 0, first_row = 0, rows = 0;
        Limits limits = {};
        std::vector<Share> shares;
    };
    std::vector<Product> products;
    std::vector<Gate> gates;
    Buffer bias, offset;                // int64: b + R; double: (b + R) / 2^s
    int shift = 0;
};

struct Convolve {                       // (7c): an affine over the channels of every pixel; its gates' rows are channels
    Affine affine;
    std::vector<Convolution> shapes;    // of each product; its matrix is that of one group
    std::vector<std::size_t> group_bytes;  // of each product's by_row
    std::size_t pixels = 0;
};

struct Narrowing {                      // (9), and (20) where the result is held
    Requantize op;
    Place in;
    std::size_t out;
    int code;                           // index into Model::codes, or -1: a path that is not multiplied
    int held;                           // index into Model::held, or -1
};

struct Elementwise {                    // (10)-(14)
    std::size_t (*run)(const Sum&) noexcept;
    Sum op;
    Place in[4];
    int operands;
    std::size_t out;
};

struct Clip {                           // (16)
    Limits limits;
    Place in;
    std::size_t out, size;
};

struct TableStep {                      // (17)-(19)
    Lookup op;
    Place in;
    std::size_t out, size;
};

struct Step {
    std::variant<Affine, Narrowing, Elementwise, Clip, TableStep, Convolve> work;
    int saturations = -1;               // index of its counter
};

struct Copy {
    std::size_t from = 0, to = 0, count = 0;  // int16 values
};

struct Clock {                          // the frames of the model's input (the first one), or those that a window makes
    int parent = 0;
    Window window;
    std::string node;
    std::int64_t least = 1;             // frames of the input for which there is one
};
inline constexpr int kOncePerRow = -1;  // the clock of a vector

struct Track {                          // a node's value, or the model's input, over the frames of a block
    std::size_t place = 0, bytes = 0;   // of the frame at hand
    int clock = 0;
};

struct Region {                         // of a stream's memory
    std::size_t offset, bytes;
};

// A value that a frame of a block keeps from one pass to the next: where it stands in a stream's memory and in the record.
struct Kept {
    Region region;
    std::size_t record;
};

// What a stage does with all frames of a block before it does more with any of them: some steps, and then the products whose
// codes these make. The last pass is the one that knows states.
struct Pass {
    struct Known {
        std::size_t step, product;      // of Stage::steps, of its affine
        std::size_t code, accumulators; // in the record
    };
    std::vector<std::size_t> steps;     // of Stage::steps
    std::vector<Kept> load, save;       // before and after the steps
    std::vector<Known> products;
};

struct FloatInput {
    std::size_t place = 0;              // of codes, or of floats
    std::size_t size = 0;
    bool is_float = false;
    double scale = 1;                   // of a code
    std::size_t values = 0;             // float: where codes are decoded to; else that place itself
};

struct FloatWork {
    FloatKind kind = FloatKind::relu;
    std::size_t size = 0, groups = 1;   // size: of the result
    double epsilon = 0;
    Buffer weight, bias;                // float; empty where there is none
    std::vector<FloatInput> in;
};

struct Memory {                         // one entry of a saved state
    std::size_t offset, size;
    Limits limits;                      // {0, 0} for what is always forgotten
    std::optional<std::size_t> oldest = {};  // of a window's ring: int64, where its first value stands
};

struct Initial {                        // codes of a state before the first frame, where they are not zeros
    std::size_t offset;
    std::vector<std::int16_t> codes;
};

struct Stage {                          // a node
    NodeKind kind = NodeKind::program;
    bool sequence = true;               // has a value in every frame; else once, after the last
    bool reverse = false;
    std::vector<Step> steps;
    std::vector<Pass> passes;           // the same steps in a block; at least one
    std::size_t record = 0;             // bytes that a frame keeps between passes
    std::size_t most_frames = 0;        // that pass through together
    std::vector<Memory> state;          // what a saved state has of it, but for v-hat
    std::vector<Initial> initial;
    std::vector<Copy> copies;           // in order: what outlives the frame, then the states' next values; a concat's parts
    std::size_t in = 0, out = 0;        // of int16, or of float; the same for `last`
    std::size_t size = 0;               // of the value
    std::vector<int> reads;             // tracks, one for each of its inputs
    int track = -1;                     // its value
    Buffer rows;                        // embedding: packed; gather: int32 features
    int bits = 0;                       // of an embedding's codes
    Window window;
    std::size_t ring = 0, oldest = 0;   // of a window: int16 frames of its input before those at hand; int64: where they begin
    std::size_t kept = 0;               // frames in the ring
    std::size_t sums = 0, seen = 0;     // mean: int64, and int64 of the frames; attention: double
    FloatWork floats;
    std::vector<Region> memory, held;   // what a row begins with as zero: of thresholds, v-hat and what is kept of its products
};

struct Saturation {
    std::string node, path;
    const char* operation;
    int index;
};

struct Model {
    const Kernel* kernel = nullptr;
    std::string id;                     // empty where thresholds were set without one
    std::size_t input_size = 0, output_size = 0;
    std::int32_t vocabulary = 0;        // the input is an int32 id below it; 0: it is int16 codes
    Format input_format, output_format;
    Range input_range, output_range;
    bool output_is_sequence = true;
    std::string not_causal;             // name of a node that needs the whole sequence; empty if none
    const char* why_not_causal = "";    // and why it does
    bool output_is_float = false;
    bool whole_rows = false;            // a block has rows as a whole: some node reads frames from the end, or ahead
    std::vector<Clock> clocks;          // a parent stands before its child
    std::vector<Track> tracks;          // the first is the input's
    int output_track = -1, output_clock = 0;
    std::size_t block_frames = 1;       // of a block, where rows may be cut or stand side by side
    std::size_t records = 0, vectors_scratch = 0;  // bytes that a block needs besides its tracks: of passes, and of the kernel
    Golden golden;

    std::vector<Stage> stages;
    std::vector<Code> codes;            // in the order in which a frame computes them
    std::vector<Held> held;             // those of them that are held; this and the state are made by hold()
    std::vector<Memory> state;          // in the order of a saved one
    std::size_t state_values = 0;
    std::vector<Saturation> saturations;
    std::vector<Buffer> constants;
    std::size_t input = 0, output = 0;  // int16 places
    std::size_t scratch = 0;            // of the kernel
    std::size_t patch = 0, group = 0, pixel = 0;  // of convolutions: int16 inputs, accumulators, and int16 results of a pixel
    std::size_t dense_memory = 0;       // bytes of a stream, were nothing held
    std::size_t memory = 0;             // bytes of a stream
};

// Frames that a clock makes of so many of the input's, which are below 2^31; 0 where a window gets too few.
std::int64_t frames_of(const Model& model, int clock, std::int64_t frames) noexcept;

// The first clock that has no frame of so many, 1..2^31-1, of the input's; 0, which is the input, where all have one.
int too_short(const Model& model, std::size_t frames) noexcept;

// Throws Error where a saved state would be too long, and std::bad_alloc.
std::unique_ptr<Model> compile(Document document, const Kernel& kernel);

// Lays out what depends on which code paths have thresholds: v-hat, what reads it, and the saved state.
void hold(Model& model);

struct Threshold {
    std::string_view node, path;
    std::span<const std::int16_t> theta;  // of every element, or one for all; none: the path is dense
};

// The same model with these thresholds, and with the others as they are. It shares all weights. Throws Error for an unknown path,
// for one that is named twice, and for a theta that does not fit, and std::bad_alloc.
std::unique_ptr<Model> with_thresholds(const Model& model, std::span<const Threshold> thresholds, std::string id);

}  // namespace rindle
