#include "kernels/gates_loops.h"

namespace rindle {

extern constinit const Gates kPortableGates = gates();

}  // namespace rindle
