/* What the C program reaches the system under test by. Calls that fail return the errno, negative. */

#ifndef SYSTEM_H
#define SYSTEM_H

#include <stddef.h>
#include <stdint.h>

struct system {
    void *context;
    int (*open)(void *context, const char *path);
    int (*ioctl)(void *context, int fd, int request, void *argument);
    int (*mmap)(void *context, int fd, size_t len, uint64_t offset, void **address);
    void (*munmap)(void *context, void *address, size_t len);
    void (*close)(void *context, int fd);
    /* Takes the messages that were delivered to the guest; returns how many there were, and the last. */
    int (*delivered)(void *context, uint64_t *addr, uint32_t *data);
    /* Bytes of the guest's address space that are mapped or trapped from this address on. */
    uint64_t (*in_guest)(void *context, uint64_t gpa);
    /* Something is not as it should be. */
    void (*wrong)(void *context, int line, const char *what, int64_t found, int64_t expected);
};

/* The whole life of a VM with one function, /dev/ppt0, the simulated one. */
void ppt_life(const struct system *system);

#endif
