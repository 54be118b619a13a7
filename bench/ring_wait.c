/* Lets a server on io_uring run under valgrind, which takes io_uring_enter for a call that never blocks and
 * lets no other thread run until it returns. A wait for completions becomes: submit, wait with ppoll, which
 * valgrind knows to block, and take what has come. For LD_PRELOAD: `instructions.sh`. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>

#define RINGS_MAX 1024

static long (*real)(long number, ...);
/* By the ring's descriptor. A ring with DEFER_TASKRUN says to an eventfd that there is work for it, and to no
 * one who polls the ring itself. */
static int events[RINGS_MAX];

__attribute__((constructor)) static void find_real(void) {
    real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
}

static long set_up(const long *a) {
    long ring = real(SYS_io_uring_setup, a[0], a[1]);
    if (ring < 0 || ring >= RINGS_MAX) return ring;
    events[ring] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    real(SYS_io_uring_register, ring, IORING_REGISTER_EVENTFD, &events[ring], 1);
    return ring;
}

/* How long to wait, as the kernel is told; null is for ever. */
static const struct timespec *patience(const long *a) {
    if (!(a[3] & IORING_ENTER_EXT_ARG) || !a[4]) return 0;
    return (const struct timespec *)(uintptr_t)((const struct io_uring_getevents_arg *)a[4])->ts;
}

static long enter(const long *a) {
    int event = events[a[0]];
    eventfd_t count;
    eventfd_read(event, &count); /* whatever comes from here on is said again */
    long submitted = real(SYS_io_uring_enter, a[0], a[1], 0, a[3], a[4], a[5]);
    if (submitted < 0) return submitted;
    struct pollfd either[] = {{.fd = (int)a[0], .events = POLLIN}, {.fd = event, .events = POLLIN}};
    int ready = ppoll(either, 2, patience(a), 0);
    if (ready > 0 && real(SYS_io_uring_enter, a[0], 0, 0, a[3], a[4], a[5]) < 0) ready = -1;
    /* Like the kernel, which says what was submitted rather than why the wait ended. */
    if (ready > 0 || submitted > 0) return submitted;
    if (ready == 0) errno = ETIME;
    return -1;
}

long syscall(long number, ...) {
    long a[6];
    va_list arguments;
    va_start(arguments, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(arguments, long);
    va_end(arguments);
    if (number == SYS_io_uring_setup) return set_up(a);
    int waits = number == SYS_io_uring_enter && (a[3] & IORING_ENTER_GETEVENTS) && a[2] > 0;
    if (waits && a[0] < RINGS_MAX) return enter(a);
    return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
