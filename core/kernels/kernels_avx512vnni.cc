// Compiled for AVX-512 F, BW, DQ, VL and VNNI; see CMakeLists.txt.
#include "kernels/vector_avx512.h"
// after the vectors
#include "kernels/kernels_x86.h"

namespace rindle {

extern constinit const Kernel kAvx512Vnni = kernel();

}  // namespace rindle
