/* Holds up what makes files durable while the file named by SLOW_SYNC is there, as a disk does that stalls. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static void stall(void) {
    const char *file = getenv("SLOW_SYNC");
    while (file && access(file, F_OK) == 0) usleep(5000);
}

int fsync(int fd) { stall(); return syscall(SYS_fsync, fd); }
int fdatasync(int fd) { stall(); return syscall(SYS_fdatasync, fd); }
