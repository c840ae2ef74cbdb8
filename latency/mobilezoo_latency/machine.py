"""State of this machine: processor, load, temperature, clock, busy threads.

Everything is read from /proc and /sys; where a system lacks them, functions return None and the check is skipped.
"""

import os
import platform
from pathlib import Path
from typing import NamedTuple

IDLE_FIELDS = (3, 4)
"""`idle` and `iowait` of /proc/stat's first line."""


class CpuTimes(NamedTuple):
    """Jiffies of all cores since boot."""

    busy: int
    total: int


def cpu_name() -> str:
    """The processor's marketing name, or its architecture."""
    for line in _read("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Hardware", "Model") and value.strip():
            return f"{value.strip()}, {os.cpu_count()} cores"
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def os_name() -> str:
    """System, release and architecture."""
    return f"{platform.system()} {platform.release()} {platform.machine()}"


def cpu_times() -> CpuTimes | None:
    """Busy and total time of the whole machine (guest time is part of user time already)."""
    first = _read("/proc/stat").partition("\n")[0].split()
    if len(first) < 9 or first[0] != "cpu":
        return None
    fields = [int(x) for x in first[1:9]]
    idle = sum(fields[i] for i in IDLE_FIELDS)
    return CpuTimes(sum(fields) - idle, sum(fields))


def other_load(before: CpuTimes | None, after: CpuTimes | None, own_cpu_s: float) -> float | None:
    """Share of all cores that other processes used between two readings.

    Args:
        before: the first reading.
        after: the second reading.
        own_cpu_s: CPU seconds of this process in between.

    Returns:
        0..1; None without readings.
    """
    if before is None or after is None or after.total <= before.total:
        return None
    own = own_cpu_s * os.sysconf("SC_CLK_TCK")
    return max(0.0, (after.busy - before.busy - own) / (after.total - before.total))


def temperature_c() -> float | None:
    """The hottest thermal zone in °C."""
    found = [_number(zone / "temp") for zone in Path("/sys/class/thermal").glob("thermal_zone*")]
    known = [t / 1000 for t in found if t is not None]
    return max(known, default=None)


def frequency_mhz() -> float | None:
    """The highest current core clock in MHz."""
    found = [_number(p) for p in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq")]
    known = [f / 1000 for f in found if f is not None]
    return max(known, default=None)


def peak_memory_bytes() -> int | None:
    """Peak resident memory of this process."""
    for line in _read("/proc/self/status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def thread_times_ns() -> dict[str, int]:
    """CPU time of each thread of this process in ns, by thread id; empty if the kernel does not provide it."""
    times = {}
    for task in Path("/proc/self/task").glob("*"):
        fields = _read(task / "schedstat").split()
        if fields:
            times[task.name] = int(fields[0])
    return times


def busy_threads(before: dict[str, int], after: dict[str, int], share: float = 0.05) -> int | None:
    """Counts the threads that worked between two readings of `thread_times_ns`.

    Args:
        before: the first reading.
        after: the second reading.
        share: a thread counts from this share of the busiest thread's CPU time on.

    Returns:
        The number of threads; None if none used CPU time.
    """
    used = [t - before.get(name, 0) for name, t in after.items()]
    top = max(used, default=0)
    return sum(t >= share * top for t in used) if top > 0 else None


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> float | None:
    try:
        return float(_read(path))
    except ValueError:
        return None
