// Compiled for AVX2 and FMA; see CMakeLists.txt.
#include "kernels/vector_avx2.h"
// after the vectors
#include "kernels/kernels_x86.h"

namespace rindle {

extern constinit const Kernel kAvx2 = kernel();

}  // namespace rindle
