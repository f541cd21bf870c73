#include "kernels/gates_loops.h"

namespace rindle {

extern constinit const Gates kAvx512Gates = gates();

}  // namespace rindle
