"""Memory of this process and this machine."""

import os
import sys
from pathlib import Path

ROOM_BYTES = 4 << 30
"""What a runtime may take for a file, besides ten times the file."""


def peak_resident_mb() -> float:
    """Returns the peak resident memory of this process in 10^6 bytes."""
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


def physical_bytes() -> int:
    """Returns the bytes of memory of this machine; 2^50 where the system does not report them."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return 1 << 50


def limit_memory_for(size_bytes: int) -> None:
    """Limits further allocations of this process to `ROOM_BYTES` plus ten times a file's size, on Linux only.

    A damaged file of a few bytes can request all memory; an allocation beyond the limit fails instead. Only Linux
    counts memory when it is requested; elsewhere there is no limit.
    """
    if sys.platform != "linux":
        return
    import resource

    taken = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = taken + ROOM_BYTES + 10 * size_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard < 0 else min(wanted, hard), hard))
