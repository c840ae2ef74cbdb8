/* SPDX-License-Identifier: Apache-2.0
 *
 * The clock that a runtime's profiler reads while operators are counted: its readings are numbers of parts.
 *
 * A profiler reads the clock where one operator ends and the next begins. This library is loaded before the others
 * (LD_PRELOAD), so that its `clock_gettime` takes the place of the C library's. Between `clock_start` and `clock_stop`
 * each reading is a marker system call, at which the plugin (blockcount.c) ends a part, and reading n gives
 * n (n + 1) / 2 microseconds: from the interval between two readings in a row follows which they were.
 */
#define _GNU_SOURCE
#include "runner.h"

#include <dlfcn.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

typedef int (*Clock)(clockid_t, struct timespec *);

static long readings = -1;

void clock_start(void)
{
    readings = 0;
}

void clock_stop(void)
{
    readings = -1;
}

int clock_gettime(clockid_t id, struct timespec *time)
{
    static Clock system_clock;
    if (readings < 0) {
        if (!system_clock)
            system_clock = (Clock)dlsym(RTLD_NEXT, "clock_gettime");
        return system_clock(id, time);
    }
    syscall(MARKER, PART_ENDS);
    long us = readings * (readings + 1) / 2;
    readings++;
    time->tv_sec = us / 1000000;
    time->tv_nsec = us % 1000000 * 1000;
    return 0;
}
