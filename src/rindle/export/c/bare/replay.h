/* What a bare machine gives to replay.c, and what it gets. */
#include <stdint.h>

/* A semihosting call. */
int semihost(int operation, const void *argument);
/* The machine's count now, and how many counts lie between two. */
uint32_t count_now(void);
uint32_t counted(uint32_t before, uint32_t after);
/* Where the stack begins and how far it may reach; of the linker's script. */
extern uint32_t stack_top, stack_end;

/* Replays the golden vector, reports and ends the emulation: with 0, or 1 where codes differ. */
void replay(void);
/* Ends the emulation. */
void leave(uint32_t code);
