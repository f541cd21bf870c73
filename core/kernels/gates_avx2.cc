#include "kernels/gates_loops.h"

namespace rindle {

extern constinit const Gates kAvx2Gates = gates();

}  // namespace rindle
