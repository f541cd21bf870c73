// The pieces of read_document, one per translation unit.
#pragma once

#include <cmath>
#include <string>
#include <unordered_map>

#include "file/document.h"
#include "file/schema.h"
#include "file/tensors.h"

namespace rindle {

inline constexpr std::int64_t kMaxSize = 1 << 20;
inline const double kExact = std::ldexp(1.0, 52);  // (8b), (15): every sum stays below

inline constexpr std::size_t kMaxFeatures = 256;

using Names = std::unordered_map<std::string, int>;

// document.cc: a model whose document this is; the tensors are its own
Document read_model(const Field& root, Container& tensors);
void check_id(const Field& field);

// document.cc. A format is read from the keys bits, frac, scale and signed of `field`.
double read_scale(const Field& field);
Format read_format(const Field& field, bool may_be_int, bool may_be_unsigned);
Range element_range(const Format& format);
Range code_range(const Format& format);
int look_up(const Names& names, const Field& field, const char* what);

// What a node's input is.
struct Source {
    std::string name;
    std::int32_t size = 0;
    Format format;
    Range range;
    bool sequence = true;
    TimeBase time;
    bool is_float = false;
};

// document_nodes.cc
Node read_node(const Field& field, const Document& document, const Names& names, const Names& table_names,
               Container& tensors);

// document_floats.cc: what is a float node's own; its operation and inputs have been read
FloatKind read_float_kind(const Field& field);
void check_finite(const std::vector<float>& numbers, const Field& field);
void read_float(Node& node, const Field& field, const std::vector<Source>& inputs, Container& tensors);

// document_program.cc: a program whose inputs are these
Program read_program(const Field& field, const std::vector<Source>& inputs, const Document& document,
                     const Names& table_names, Container& tensors);

// document_bounds.cc
Alignment align(const Op& op, const std::vector<Path>& paths, const Field& field);           // (10)-(15)
void check_affine(Op& op, const std::vector<Path>& paths, const Field& field);               // (8b)
// Refuses codes that no file may hold. Returns the sum of |level| of each row.
std::vector<std::int64_t> check_packed(std::span<const std::byte> bytes, std::int32_t rows, std::int32_t columns,
                                       const Levels& levels, const Field& field);

}  // namespace rindle
