// What a .rindle file says (docs/format.md), read and completely checked. Names are resolved to indices,
// weights kept as they are; nothing here depends on a kernel.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/levels.h"

namespace rindle {

class Field;

// The features that a file of version 4 says it needs; document_needs.cc has those that there are.
class Needs {
  public:
    Needs() = default;
    explicit Needs(const Field& field);                            // throws Error for one that is unknown
    void use(std::string_view feature, const Field& field) const;  // throws Error where the file does not name it
    void refuse_unused(const Field& field) const;

  private:
    std::vector<std::string> names_;  // sorted
    mutable std::vector<char> used_;
};

// (1), (2)
struct Format {
    int bits = 16;
    bool fixed = true;
    int frac = 0;      // of a fixed format
    double scale = 1;  // value of one code: 2^-frac, or the float32 of an int format
    bool is_signed = true;

    bool operator==(const Format&) const = default;
};

struct Range {
    std::int32_t lo = 0, hi = 0;
    std::int32_t magnitude() const { return -lo > hi ? -lo : hi; }
};

enum class Role { element, code, vector };

struct Path {
    std::string name;
    Role role = Role::element;
    std::int32_t size = 0;
    Format format;
    Range range;
    std::vector<std::int16_t> constant;  // of a vector
    bool held = false;
    std::vector<std::int16_t> theta;  // one per element of a held code (20)
};

enum class OpKind { affine, requantize, add, sub, mul, sum_of_products, lerp, clip, table };
inline constexpr std::array<const char*, 9> kOpNames = {"affine",          "requantize", "add",  "sub",  "mul",
                                                        "sum_of_products", "lerp",       "clip", "table"};

// (7c). Pairs are (height, width).
struct Convolution {
    using Pair = std::array<std::int64_t, 2>;
    Pair image = {1, 1}, kernel = {1, 1}, stride = {1, 1}, dilation = {1, 1}, padding = {0, 0}, result = {1, 1};
    std::int64_t groups = 1;
    std::int64_t group_channels = 1;  // of the code, in one group

    std::int64_t pixels() const { return result[0] * result[1]; }
};

// One matrix of an affine, and the rows to which it adds. Of a convolution the rows are channels, and the columns those of
// one group's kernel window.
struct Term {
    int code = 0;        // path
    int first_gate = 0, gates = 0;
    std::int32_t rows = 0, columns = 0;
    std::optional<Convolution> convolution;
    Levels levels = integers(8);
    std::vector<std::byte> weight;  // [rows, columns], packed as in the file
    std::vector<std::int64_t> sums;  // of |level|, per row
    std::vector<std::int32_t> multiplier;
    std::int64_t largest = 0;  // of A over the rows: 64-bit accumulators from 2^31 up
};

// Where the terms of an element-wise sum and its result stand (14): v = sum of term[i] << left[i], then round(v, shift).
struct Alignment {
    std::array<int, 2> left = {0, 0};
    int shift = 0;      // >= 0: a left shift of the result has been given to the terms
    double worst = 0;   // of |v| + R (15)
};

struct Op {
    OpKind kind = OpKind::add;
    std::vector<int> out, in;  // paths
    int shift = 0;             // affine, requantize
    std::int32_t multiplier = 0;
    std::vector<Term> terms;   // all convolutions with one result, or none
    std::vector<std::int64_t> bias;
    std::int64_t pixels = 1;   // elements of a gate per row of the terms and the bias
    Alignment alignment;  // add .. lerp
    Range clip;
    int table = 0;
};

struct Program {
    std::vector<Path> paths;
    std::vector<int> inputs;  // paths, one for each of the node's inputs
    int output = 0;
    std::vector<std::array<int, 2>> states;  // state path, path of its next value
    std::vector<std::vector<std::int16_t>> initial;  // of each state, its codes before the first frame; empty for zeros
    std::vector<Op> ops;
};

enum class NodeKind { program, concat, last, first, mean, max, embedding, window, gather, floating };
inline constexpr int kModelInput = -1;

// (23)
struct Window {
    std::int64_t size = 1, dilation = 1, stride = 1, before = 0, after = 0;

    std::int64_t span() const { return dilation * (size - 1); }           // frames between its first and its last
    std::int64_t loss() const { return span() - before - after; }         // e: frames fewer, where the stride is 1
    bool causal() const { return stride == 1 && before == span() && after == 0; }
    // T' of T frames; 0 or less where they are too few. Exact for T below 2^40.
    std::int64_t frames(std::int64_t of) const { return of > loss() ? (of - loss() - 1) / stride + 1 : 0; }
};

enum class FloatKind { softmax, log_softmax, relu, sigmoid, tanh, gelu, gelu_tanh, layer_norm, linear, add, mul, attention };
inline constexpr std::array<const char*, 12> kFloatNames = {"softmax", "log_softmax", "relu",   "sigmoid", "tanh", "gelu",
                                                            "gelu_tanh", "layer_norm", "linear", "add",     "mul",  "attention"};

struct FloatOp {
    FloatKind kind = FloatKind::relu;
    std::int32_t groups = 1;           // softmax, log_softmax
    double epsilon = 0;                // layer_norm
    std::vector<float> weight, bias;   // layer_norm: [n] each; linear: [rows, n] and [rows]; empty where there is none
};

// The windows between the model's input and a sequence, as (e, s); equal ones are of one time base.
using TimeBase = std::vector<std::array<std::int64_t, 2>>;

struct Node {
    std::string name;
    NodeKind kind = NodeKind::program;
    std::vector<int> inputs;  // nodes, or kModelInput
    Program program;
    bool reverse = false;  // the program goes from a row's last frame to its first
    std::vector<std::byte> rows;  // of an embedding: [vocabulary, ceil(size * bits / 8)], packed as in the file
    Window window;
    std::vector<std::int32_t> index;  // of a gather: features of its input
    FloatOp op;            // of a float node
    bool sequence = true;  // the value: one vector per frame, or one per row
    TimeBase time;         // of a sequence
    std::int32_t size = 0;
    Format format;         // of codes
    Range range;

    bool is_float() const { return kind == NodeKind::floating; }
};

enum class Symmetry { none, odd, sigmoid };

struct Table {
    std::string name;
    int degree = 0;
    Symmetry symmetry = Symmetry::none;
    std::int32_t x0 = 0;
    int p = 0, q = 0;
    std::vector<std::int16_t> base, slope;
};

struct Golden {
    std::int64_t batch = 0, frames = 0;
    std::vector<std::int16_t> inputs, outputs;
    std::vector<float> float_outputs;  // instead of outputs, where the model's output is float
    std::vector<std::int32_t> ids;  // instead of inputs, where the model's input is ids
    std::vector<std::int32_t> lengths;
};

struct Document {
    std::string id;
    std::int64_t version = 1;
    Needs needs;
    std::int32_t vocabulary = 0;  // ids are below; 0 where the input is frames of features
    std::int32_t input_size = 0;  // 1 for ids
    Format input_format;
    Range input_range;
    int output = 0;  // node
    std::vector<Node> nodes;
    std::vector<Table> tables;
    Golden golden;
};

// The model of a file. Throws Error for anything that docs/format.md does not allow, and for a file of several models, whose parts it
// names. The bytes are not needed afterwards.
Document read_document(std::span<const std::byte> file);

// One model of a file of several, by its name. Throws Error for a file of one.
Document read_part(std::span<const std::byte> file, const std::string& name);

// The names of a file's parts, in order; none where it has one model.
std::vector<std::string> read_part_names(std::span<const std::byte> file);

}  // namespace rindle
