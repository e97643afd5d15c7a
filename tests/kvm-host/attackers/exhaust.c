/* Runs in QEMU's place and takes without end of what its name says (-DMEMORY, -DPROCESSES, -DPROCESSOR). What stops it is the
 * machine's cgroup: see checks/limits.sh. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int main(int count, char **arguments) {
    if (count > 1 && strcmp(arguments[1], "--version") == 0) {
        puts("QEMU emulator version 7.2.0 (an attacker)");
        return 0;
    }
#if defined MEMORY
    for (;;) {
        char *block = malloc(1 << 20);
        if (!block) pause();
        memset(block, 1, 1 << 20);
    }
#elif defined PROCESSES
    int made = 0;
    while (made < 100000) {
        pid_t child = fork();
        if (child < 0) break;
        if (child == 0) for (;;) pause();
        made++;
    }
    printf("made %d processes\n", made);
#else
    /* More than the host has processors, for longer than anybody looks. */
    for (int i = 0; i < 16; i++)
        if (fork() == 0) {
            time_t end = time(0) + 100;
            while (time(0) < end) {}
            _exit(0);
        }
    while (wait(0) > 0) {}
    puts("spun");
#endif
    fflush(stdout);
    return 0;
}
