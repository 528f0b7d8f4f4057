/* To be preloaded: a close of a database begins to act three milliseconds after the call. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int close(int fd) {
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, "close");
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path);
    if (length > 3 && !memcmp(path + length - 3, ".db", 3))
        usleep(3000);
    return next(fd);
}
