/* Starts a 32-bit RISC-V in qemu (-M virt -bios none), which counts instructions. The loader has cleared what must be zero. */
#include "replay.h"

void start(void);

/* Exactly these three instructions, uncompressed and in one cache line, are a semihosting call. */
__asm__(".option push\n.option norvc\n.balign 16\n.global semihost\nsemihost:\n"
        "slli x0, x0, 0x1f\nebreak\nsrai x0, x0, 7\nret\n.option pop\n");

uint32_t count_now(void)
{
    uint32_t count;
    __asm__ volatile(".insn i 0x73, 2, %0, x0, -1022" : "=r"(count)); /* rdinstret, for assemblers that want an extension's name */
    return count;
}

uint32_t counted(uint32_t before, uint32_t after)
{
    return after - before;
}

__attribute__((section(".entry"), naked)) void start(void)
{
    __asm__ volatile("la sp, stack_top\nj replay");
}
