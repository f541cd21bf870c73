// Float nodes: on the output side of a model, outside the promise of equal bits. Values are float, arithmetic is double, and
// every element of a result is rounded to float once.
#pragma once

#include "plan/model.h"

namespace rindle {

// One frame or vector: y [work.size] from a and, where the operation has two inputs, b. Not for attention, which is over a row.
void evaluate(const FloatWork& work, const float* a, const float* b, float* y) noexcept;

}  // namespace rindle
