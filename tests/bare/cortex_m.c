/* Starts a Cortex-M in qemu, replays the golden vector, and reports through semihosting: how many codes differ, and how many
   ticks of SysTick one pass took (with -icount shift=0 a nanosecond is an instruction). Compiled with -mgeneral-regs-only, so that
   nothing here uses a coprocessor before it is enabled. */
#include <stdint.h>

int GOLDEN(void);
int main(void);
void start(void);
void fault(void);
extern uint32_t stack_top, data_from, data_begin, data_end, bss_begin, bss_end;

#define SYST_CSR (*(volatile uint32_t *)0xE000E010u)
#define SYST_RVR (*(volatile uint32_t *)0xE000E014u)
#define SYST_CVR (*(volatile uint32_t *)0xE000E018u)
#define CPACR (*(volatile uint32_t *)0xE000ED88u)

static void semihost(int operation, const void *argument)
{
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}

static void leave(uint32_t code)
{
    const uint32_t block[2] = {0x20026, code};
    semihost(0x20, block);
    for (;;) {
    }
}

void fault(void)
{
    leave(99);
}

static void say(const char *what, uint32_t number)
{
    char text[12];
    int at = 11;
    text[at] = 0;
    do {
        text[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    semihost(4, what);
    semihost(4, text + at);
    semihost(4, "\n");
}

void start(void)
{
    uint32_t *from = &data_from, *to;
    CPACR |= 0xfu << 20;
    __asm__ volatile("dsb\n isb" ::: "memory");
    for (to = &data_begin; to < &data_end;) *to++ = *from++;
    for (to = &bss_begin; to < &bss_end;) *to++ = 0;
    leave((uint32_t)main());
}

__attribute__((section(".vectors"), used)) static void *const vectors[16] = {
    &stack_top, (void *)start, (void *)fault, (void *)fault, (void *)fault, (void *)fault, (void *)fault};

int main(void)
{
    uint32_t before, after;
    int wrong;
    SYST_RVR = 0xffffff;
    SYST_CVR = 0;
    SYST_CSR = 5;
    before = SYST_CVR;
    wrong = GOLDEN();
    after = SYST_CVR;
    say("ticks ", (before - after) & 0xffffff);
    say("wrong ", (uint32_t)wrong);
    return wrong != 0;
}
