"""Memory of this process and this machine."""

import os
import sys


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
