// Compiled for AVX2, FMA and AVX-VNNI; see CMakeLists.txt.
#define RINDLE_VNNI
#include "kernels/vector_avx2.h"
// after the vectors
#include "kernels/kernels_x86.h"

namespace rindle {

extern constinit const Kernel kAvxVnni = kernel();

}  // namespace rindle
