// The kernels of docs/numerics.md over vectors, for every x86 instruction set: a translation unit includes its vectors (a
// class Vector) and then this. Everything is in an anonymous namespace, and nothing of the library is used, so that no
// function compiled for one instruction set can be linked into code for another.
#pragma once

#include "kernels/x86_columns.h"
#include "kernels/x86_elementwise.h"
#include "kernels/x86_products.h"

namespace rindle {
namespace {

constexpr Kernel kernel() {
    return {
        .name = V::kName,
        .row_bytes = row_bytes,
        .pack_rows = pack_rows,
        .column_bytes = column_bytes,
        .pack_columns = pack_columns,
        .multiply = multiply,
        .multiply_vectors = multiply_vectors,
        .add_columns = add_columns,
        .hold = hold,
        .encode = encode,
        .finish = finish,
        .requantize = requantize,
        .add = sum<Operation::add>,
        .sub = sum<Operation::sub>,
        .mul = sum<Operation::mul>,
        .sum_of_products = sum<Operation::sum_of_products>,
        .lerp = sum<Operation::lerp>,
        .clip = clip,
        .lookup = lookup,
        .gates = V::kGates,
    };
}

}  // namespace
}  // namespace rindle
