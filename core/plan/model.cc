#include "plan/model.h"

#include <algorithm>

#include "plan/compiler.h"

namespace rindle {
namespace {

constexpr std::size_t kBlockBytes = 4 * 1024 * 1024;  // of a block's tracks: a block has fewer frames where these are large

// Why a node has no value before the whole sequence is there; nullptr if it has. The words are those of program/graph.py, which
// a test compares.
const char* why_no_stream(const Node& node) {
    switch (node.kind) {
        case NodeKind::program: return node.reverse ? "reads the sequence from its end" : nullptr;
        case NodeKind::first: return "keeps the first frame";
        case NodeKind::mean: return "averages over the whole sequence";
        case NodeKind::max: return "is the maximum over the whole sequence";
        case NodeKind::window:
            if (node.window.causal()) return nullptr;
            return node.window.loss() == 0 && node.window.stride == 1 ? "reads frames ahead" : "changes the number of frames";
        case NodeKind::floating: return node.op.kind == FloatKind::attention ? "weighs the whole sequence" : nullptr;
        default: return nullptr;
    }
}

// Whether a block must have its rows as a whole. (The sums of a mean, a maximum and a first frame can wait for the row's end.)
bool needs_whole_rows(const Node& node) {
    return why_no_stream(node) && node.kind != NodeKind::first && node.kind != NodeKind::mean && node.kind != NodeKind::max;
}

}  // namespace

std::unique_ptr<Model> Compiler::compile() {
    const Node& output = document_.nodes[static_cast<std::size_t>(document_.output)];
    model_->id = document_.id;
    model_->input_size = static_cast<std::size_t>(document_.input_size);
    model_->input_format = document_.input_format;
    model_->input_range = document_.input_range;
    model_->output_size = static_cast<std::size_t>(output.size);
    model_->output_format = output.format;
    model_->output_range = output.range;
    model_->output_is_sequence = output.sequence;
    model_->output_is_float = output.is_float();
    model_->golden = std::move(document_.golden);
    model_->saturations.push_back({"input", "input", "input", -1});
    model_->vocabulary = document_.vocabulary;
    model_->whole_rows = std::any_of(document_.nodes.begin(), document_.nodes.end(), needs_whole_rows);
    model_->input = model_->vocabulary ? allocate<std::int32_t>(1) : allocate<std::int16_t>(model_->input_size);
    model_->clocks.push_back({0, {}, "input", 1});
    track(model_->input, model_->vocabulary ? sizeof(std::int32_t) : model_->input_size * sizeof(std::int16_t), 0);
    for (Node& node : document_.nodes) {
        stage(node);
        node.program = {};  // its weights are packed now
        node.rows = {};
        node.op = {};
    }
    model_->scratch = allocate<std::byte>(scratch_bytes(static_cast<std::size_t>(most_columns_)));
    model_->patch = allocate<std::int16_t>(patch_);
    model_->group = allocate<std::byte>(group_);
    model_->pixel = allocate<std::int16_t>(pixel_);
    model_->output = stage_of(document_.output).out;
    model_->output_track = stage_of(document_.output).track;
    model_->output_clock = output.sequence ? clock_of(document_.output) : 0;
    std::size_t frame_bytes = 0;
    for (const Track& track : model_->tracks) frame_bytes += track.bytes;
    model_->block_frames = std::clamp<std::size_t>(kBlockBytes / frame_bytes, 1, kMostFrames);
    model_->dense_memory = model_->memory;
    hold(*model_);
    return std::move(model_);
}

int Compiler::track(std::size_t place, std::size_t bytes, int clock) {
    model_->tracks.push_back({place, bytes, clock});
    return static_cast<int>(model_->tracks.size()) - 1;
}

// Of a sequence.
int Compiler::clock_of(int node) const {
    const int at = node == kModelInput ? 0 : stage_of(node).track;
    return model_->tracks[static_cast<std::size_t>(at)].clock;
}

// One frame of the window needs 1 + e of its input, n need (n - 1) s more; and no window may be without a frame.
int Compiler::window_clock(const Node& node) {
    const int parent = clock_of(node.inputs[0]);
    std::int64_t least = std::max<std::int64_t>(1, node.window.loss() + 1);
    for (int at = parent; at != 0; at = model_->clocks[static_cast<std::size_t>(at)].parent) {
        const Window& window = model_->clocks[static_cast<std::size_t>(at)].window;
        least = std::max<std::int64_t>(1, std::min(least - 1, std::int64_t{1} << 40) * window.stride + window.loss() + 1);
    }
    model_->clocks.push_back({parent, node.window, node.name, least});
    return static_cast<int>(model_->clocks.size()) - 1;
}

void Compiler::stage(const Node& node) {
    Stage stage;
    stage.kind = node.kind;
    stage.sequence = node.sequence;
    stage.reverse = node.reverse;
    stage.size = static_cast<std::size_t>(node.size);
    for (int input : node.inputs) stage.reads.push_back(input == kModelInput ? 0 : stage_of(input).track);
    stage.in = out_of(node.inputs[0]);
    int clock = node.sequence ? clock_of(node.inputs[0]) : kOncePerRow;
    if (const char* why = why_no_stream(node); why && model_->not_causal.empty()) {
        model_->not_causal = node.name;
        model_->why_not_causal = why;
    }
    switch (node.kind) {
        case NodeKind::program: program(node, stage); break;
        case NodeKind::last: stage.out = stage.in; break;
        case NodeKind::mean:
            stage.sums = remember<std::int64_t>(stage, stage.size);
            stage.seen = remember<std::int64_t>(stage, 1);
            [[fallthrough]];
        case NodeKind::first:
        case NodeKind::max: stage.out = allocate<std::int16_t>(stage.size); break;
        case NodeKind::concat: concat(node, stage); break;
        case NodeKind::embedding:
            stage.out = allocate<std::int16_t>(stage.size);
            stage.rows = buffer_of(node.rows);
            stage.bits = node.format.bits;
            break;
        case NodeKind::gather:
            stage.out = allocate<std::int16_t>(stage.size);
            stage.rows = buffer_of(node.index);
            break;
        case NodeKind::window:
            window(node, stage);
            clock = window_clock(node);
            break;
        case NodeKind::floating: floats(node, stage); break;
    }
    stage.track = track(stage.out, stage.size * (node.is_float() ? sizeof(float) : sizeof(std::int16_t)), clock);
    model_->stages.push_back(std::move(stage));
}

void Compiler::concat(const Node& node, Stage& stage) {
    stage.out = allocate<std::int16_t>(stage.size);
    std::size_t to = stage.out;
    for (int input : node.inputs) {
        stage.copies.push_back({out_of(input), to, size_of(input)});
        to += size_of(input) * sizeof(std::int16_t);
    }
}

// Where rows may be cut, a ring keeps the frames before those at hand, and is saved with the states.
void Compiler::window(const Node& node, Stage& stage) {
    stage.out = allocate<std::int16_t>(stage.size);
    stage.window = node.window;
    if (model_->whole_rows) return;
    stage.kept = static_cast<std::size_t>(node.window.span());
    const std::size_t values = stage.kept * size_of(node.inputs[0]);
    stage.ring = remember<std::int16_t>(stage, values);
    stage.oldest = remember<std::int64_t>(stage, 1);
    stage.state.push_back({stage.ring, values, limits_of(node.range), stage.oldest});
}

void Compiler::floats(const Node& node, Stage& stage) {
    FloatWork& work = stage.floats;
    work.kind = node.op.kind;
    work.size = stage.size;
    work.groups = static_cast<std::size_t>(node.op.groups);
    work.epsilon = node.op.epsilon;
    if (!node.op.weight.empty()) work.weight = buffer_of(node.op.weight);
    if (!node.op.bias.empty()) work.bias = buffer_of(node.op.bias);
    for (int input : node.inputs) {
        const bool is_float = input != kModelInput && document_.nodes[static_cast<std::size_t>(input)].is_float();
        const Format& format = input == kModelInput ? document_.input_format : document_.nodes[static_cast<std::size_t>(input)].format;
        FloatInput in = {out_of(input), size_of(input), is_float, format.scale, out_of(input)};
        if (!is_float) in.values = allocate<float>(in.size);
        work.in.push_back(in);
    }
    stage.out = allocate<float>(stage.size);
    if (work.kind == FloatKind::attention) stage.sums = allocate<double>(stage.size);
}

Buffer::Buffer(std::size_t bytes) : size_(aligned(bytes)) {
    if (size_ == 0) return;
    data_.reset(static_cast<std::byte*>(::operator new[](size_, std::align_val_t{kAlignment})), Free());
    std::memset(data_.get(), 0, size_);
}

std::int64_t frames_of(const Model& model, int clock, std::int64_t frames) noexcept {
    if (clock == 0 || frames < 1) return frames;
    const Clock& at = model.clocks[static_cast<std::size_t>(clock)];
    const std::int64_t made = frames_of(model, at.parent, frames);
    return made < 1 ? 0 : at.window.frames(made);
}

int too_short(const Model& model, std::size_t frames) noexcept {
    for (std::size_t i = 1; i < model.clocks.size(); ++i)
        if (static_cast<std::int64_t>(frames) < model.clocks[i].least) return static_cast<int>(i);
    return 0;
}

std::unique_ptr<Model> compile(Document document, const Kernel& kernel) { return Compiler(document, kernel).compile(); }

}  // namespace rindle
