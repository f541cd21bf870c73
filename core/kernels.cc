#include "kernels.h"

#include <cstdlib>
#include <string>

#include "error.h"

namespace rindle {
namespace {

// Fastest first. One row per kernel.
constexpr const Kernel* kKernels[] = {
    &kPortable,
};

}  // namespace

KernelList all_kernels() noexcept { return {kKernels, sizeof kKernels / sizeof *kKernels}; }

const Kernel& choose_kernel(const char* name) {
    const auto given = [](const char* text) { return text && *text; };
    if (!given(name)) name = std::getenv("RINDLE_KERNEL");
    std::string known;
    for (const Kernel* kernel : kKernels) {
        if (!given(name) ? kernel->available() : kernel->name == std::string(name)) {
            if (kernel->available()) return *kernel;
            throw Error(RINDLE_INVALID_ARGUMENT, "kernel \"" + std::string(name) + "\" needs a CPU that this one is not");
        }
        known += std::string(known.empty() ? "" : ", ") + kernel->name;
    }
    throw Error(RINDLE_INVALID_ARGUMENT, "kernel \"" + std::string(name ? name : "") + "\" is unknown; known are: " + known);
}

}  // namespace rindle
