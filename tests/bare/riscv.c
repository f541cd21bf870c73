/* Starts a 32-bit RISC-V in qemu (-M virt -bios none), replays the golden vector, and reports as cortex_m.c does; a tick is an
   instruction. The loader has cleared what must be zero. */
#include <stdint.h>

int GOLDEN(void);
void start(void);
void begin(void);

/* Exactly these three instructions, uncompressed and in one cache line, are a semihosting call. */
__asm__(".option push\n.option norvc\n.balign 16\n.global semihost\nsemihost:\n"
        "slli x0, x0, 0x1f\nebreak\nsrai x0, x0, 7\nret\n.option pop\n");
int semihost(int operation, const void *argument);

static void leave(uint32_t code)
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

static uint32_t instructions(void)
{
    uint32_t count;
    __asm__ volatile(".insn i 0x73, 2, %0, x0, -1022" : "=r"(count)); /* rdinstret, for assemblers that want an extension's name */
    return count;
}

__attribute__((section(".entry"), naked)) void start(void)
{
    __asm__ volatile("la sp, stack_top\nj begin");
}

void begin(void)
{
    const uint32_t before = instructions();
    const int wrong = GOLDEN();
    const uint32_t after = instructions();
    say("ticks ", after - before);
    say("wrong ", (uint32_t)wrong);
    leave(wrong != 0);
}
