/* Starts a Cortex-M in qemu. It counts ticks of SysTick: with -icount shift=0 a nanosecond is an instruction. Compiled with
   -mgeneral-regs-only, so that nothing here uses a coprocessor before it is enabled. */
#include "replay.h"

void start(void);
void fault(void);
extern uint32_t data_from, data_begin, data_end, bss_begin, bss_end;

#define SYST_CSR (*(volatile uint32_t *)0xE000E010u)
#define SYST_RVR (*(volatile uint32_t *)0xE000E014u)
#define SYST_CVR (*(volatile uint32_t *)0xE000E018u)
#define CPACR (*(volatile uint32_t *)0xE000ED88u)

int semihost(int operation, const void *argument)
{
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

void fault(void)
{
    leave(99);
}

uint32_t count_now(void)
{
    return SYST_CVR;
}

/* The counter runs down, and has 24 bits; it says whether it was at 0. */
uint32_t counted(uint32_t before, uint32_t after)
{
    if (SYST_CSR & 0x10000u) leave(98);
    return before - after;
}

void start(void)
{
    uint32_t *from = &data_from, *to;
    CPACR |= 0xfu << 20;
    __asm__ volatile("dsb\n isb" ::: "memory");
    for (to = &data_begin; to < &data_end;) *to++ = *from++;
    for (to = &bss_begin; to < &bss_end;) *to++ = 0;
    SYST_RVR = 0xffffff;
    SYST_CVR = 0;
    SYST_CSR = 5;
    while (SYST_CVR == 0) {
    }
    (void)SYST_CSR; /* which clears what it says */
    replay();
}

__attribute__((section(".vectors"), used)) static void *const vectors[16] = {
    &stack_top, (void *)start, (void *)fault, (void *)fault, (void *)fault, (void *)fault, (void *)fault};
