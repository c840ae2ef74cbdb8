"""Memory of this process and this machine."""

import os
import sys
from pathlib import Path

ROOM_BYTES = 4 << 30
"""What a runtime may take for a file, besides ten times the file."""


def peak_resident_mb() -> float:
    """The most this process ever had resident, in 10^6 bytes."""
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


def physical_bytes() -> int:
    """Memory of this machine; where the system does not tell, more than any has."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return 1 << 50


def limit_memory_for(size_bytes: int) -> None:
    """Let this process take `ROOM_BYTES` and ten times a file's size from now on: a few bytes can ask for all there is.

    What goes beyond fails to be allocated. Linux alone counts what was asked for and not only what was used.
    """
    if sys.platform != "linux":
        return
    import resource

    taken = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = taken + ROOM_BYTES + 10 * size_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard < 0 else min(wanted, hard), hard))
