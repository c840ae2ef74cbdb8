"""State of a device: cores, load, temperature and clock, read through one shell command."""

import re
from typing import Literal, NamedTuple

from mobilezoo.errors import DeviceError
from mobilezoo_latency.remote.link import Link

QUERY = (
    "head -n 1 /proc/stat 2>/dev/null; "
    "for f in /sys/class/thermal/thermal_zone*/temp; do printf 'temp '; cat $f 2>/dev/null || echo; done; "
    "for f in /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq; "
    "do printf 'freq '; cat $f 2>/dev/null || echo; done"
)
CLASSES = (
    "for d in /sys/devices/system/cpu/cpu[0-9]*; do "
    'echo "$(basename $d) $(cat $d/cpufreq/cpuinfo_max_freq 2>/dev/null || cat $d/cpu_capacity 2>/dev/null)"; done'
)
NUMBER = re.compile(r"-?\d{1,15}(\.\d{1,9})?", re.ASCII)
COUNT = re.compile(r"\d{1,15}", re.ASCII)
CORE = re.compile(r"cpu(\d{1,4})", re.ASCII)
PLAUSIBLE_C = (0.0, 150.0)
Cores = Literal["any", "big", "mid", "little"]
"""Classes by maximum clock; `any` leaves the choice to the system."""


class DeviceState(NamedTuple):
    """State at one moment; None for what the device does not report."""

    busy: int | None
    total: int | None
    cores: int
    temperature_c: float | None
    frequency_mhz: float | None

    def other_load(self, before: "DeviceState", threads: int) -> float | None:
        """Share of all cores that was busy since an earlier state, without the timed threads.

        Args:
            before: the earlier state.
            threads: threads that were being timed.

        Returns:
            0..1; None if the device does not report its load.
        """
        if None in (self.busy, self.total, before.busy, before.total) or not self.cores:
            return None
        assert self.busy is not None
        assert self.total is not None
        assert before.busy is not None
        assert before.total is not None
        if self.total <= before.total:
            return None
        share = (self.busy - before.busy) / (self.total - before.total)
        return max(0.0, share - threads / self.cores)


class CoreClass(NamedTuple):
    """Cores of equal speed."""

    speed: int
    cpus: tuple[int, ...]


def read_state(link: Link) -> DeviceState:
    """The device's state now."""
    return parse_state(link.shell(QUERY).text)


def parse_state(text: str) -> DeviceState:
    """State from QUERY's output."""
    busy = total = None
    temperatures: list[float] = []
    clocks: list[float] = []
    for line in text.split("\n"):
        key, *values = line.split()[:9] or [""]
        numbers = [float(value) for value in values if NUMBER.fullmatch(value)]
        if key == "cpu" and len(numbers) >= 8:
            total = int(sum(numbers[:8]))
            busy = total - int(numbers[3] + numbers[4])
        elif key == "temp" and numbers:
            degrees = numbers[0] / 1000 if numbers[0] > 1000 else numbers[0]
            temperatures += [degrees] if PLAUSIBLE_C[0] < degrees < PLAUSIBLE_C[1] else []
        elif key == "freq" and numbers:
            clocks.append(numbers[0] / 1000)
    return DeviceState(busy, total, len(clocks), max(temperatures, default=None), max(clocks, default=None))


def core_classes(link: Link) -> list[CoreClass]:
    """Cores grouped by maximum clock, slowest first; empty if the device does not report them."""
    return parse_classes(link.shell(CLASSES).text)


def parse_classes(text: str) -> list[CoreClass]:
    """Core classes from CLASSES' output."""
    by_speed: dict[int, list[int]] = {}
    for line in text.split("\n"):
        name, _, speed = line.partition(" ")
        if (core := CORE.fullmatch(name)) and (known := COUNT.fullmatch(speed.strip())):
            by_speed.setdefault(int(known[0]), []).append(int(core[1]))
    return [CoreClass(speed, tuple(sorted(cpus))) for speed, cpus in sorted(by_speed.items())]


def pick_cores(classes: list[CoreClass], wanted: Cores, threads: int, name: str) -> CoreClass:
    """Returns the core class to pin to.

    Args:
        classes: classes of the device, slowest first.
        wanted: `little`, `mid` or `big`.
        threads: cores that are needed.
        name: the device, for messages.

    Raises:
        DeviceError: no such class, or it has fewer cores than threads.
    """
    by_name: dict[str, CoreClass] = {}
    if classes:
        by_name = {"little": classes[0], "big": classes[-1]}
        if len(classes) > 2:
            by_name["mid"] = classes[len(classes) // 2]
    if wanted not in by_name:
        known = ", ".join(by_name) or "no core classes"
        raise DeviceError(f"{name} reports {known}: cores={wanted} cannot be chosen")
    chosen = by_name[wanted]
    if len(chosen.cpus) < threads:
        raise DeviceError(f"{name} has {len(chosen.cpus)} {wanted} core(s), and {threads} threads were requested")
    return chosen
