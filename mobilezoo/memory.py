"""Memory of this process."""

import sys


def peak_resident_mb() -> float:
    """The most this process ever had resident, in 10^6 bytes."""
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)
