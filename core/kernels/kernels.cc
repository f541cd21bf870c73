#include "kernels/kernels.h"

#ifdef RINDLE_X86
#include <cpuid.h>
#endif

#include <cstdlib>
#include <string>

#include "file/error.h"

namespace rindle {
namespace {

struct Row {
    const Kernel* kernel;
    bool (*available)() noexcept;  // on this CPU, with this operating system
};

// Fastest first. One row per kernel. What a kernel needs is asked here, in code that every CPU of the target runs.
constexpr Row kKernels[] = {
#ifdef RINDLE_X86
    {&kAvx512Vnni,
     []() noexcept -> bool {
         return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
     }},
    {&kAvxVnni,
     []() noexcept -> bool {
         unsigned a = 0, b, c, d;  // clang 14 does not know "avxvnni"
         return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __get_cpuid_count(7, 1, &a, &b, &c, &d) &&
                (a & 1U << 4);
     }},
    {&kAvx2, []() noexcept -> bool { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }},
#endif
    {&kPortable, []() noexcept { return true; }},
};

}  // namespace

KernelList available_kernels() noexcept {
    KernelList list = {};
    for (const Row& row : kKernels)
        if (row.available()) list.kernels[list.count++] = row.kernel;
    return list;
}

const Kernel& choose_kernel(const char* name) {
    const auto given = [](const char* text) { return text && *text; };
    if (!given(name)) name = std::getenv("RINDLE_KERNEL");
    std::string known;
    for (const Row& row : kKernels) {
        if (!given(name) ? row.available() : row.kernel->name == std::string(name)) {
            if (row.available()) return *row.kernel;
            throw Error(RINDLE_INVALID_ARGUMENT, "kernel \"" + std::string(name) + "\" needs a CPU that this one is not");
        }
        known += std::string(known.empty() ? "" : ", ") + row.kernel->name;
    }
    throw Error(RINDLE_INVALID_ARGUMENT, "kernel \"" + std::string(name ? name : "") + "\" is unknown; known are: " + known);
}

}  // namespace rindle
