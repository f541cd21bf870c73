/* Replays the golden vector on a machine without anything, and reports through semihosting: how many codes differ, what one pass
   took, and how deep the stack was. */
#include "replay.h"

#define UNUSED 0x5afe57acu

int GOLDEN(void);

void leave(uint32_t code)
{
    const uint32_t block[2] = {0x20026, code};
    semihost(0x20, block);
    for (;;) {
    }
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

/* The words below the stack are painted; those that still are when GOLDEN has returned were not its stack. */
void replay(void)
{
    uint32_t *here, *at, before, after;
    int wrong;
#ifdef __riscv
    __asm__ volatile("mv %0, sp" : "=r"(here));
#else
    __asm__ volatile("mov %0, sp" : "=r"(here));
#endif
    for (at = &stack_end; at < here; ++at) *(volatile uint32_t *)at = UNUSED;
    before = count_now();
    wrong = GOLDEN();
    after = count_now();
    for (at = &stack_end; at < here && *(volatile uint32_t *)at == UNUSED;) ++at;
    say("counts ", counted(before, after));
    say("stack ", (uint32_t)((const char *)here - (const char *)at));
    say("wrong ", (uint32_t)wrong);
    leave(wrong != 0);
}
