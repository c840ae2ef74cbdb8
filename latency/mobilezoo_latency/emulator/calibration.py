"""Calibration of an emulated core: cycles → milliseconds of a real board, from networks with measured latency.

Two numbers are fitted: milliseconds per million cycles, and cycles per cache line that came from memory. The error that
goes with every estimate is measured on networks that were left out of the fit, one at a time.
"""

import math
from collections.abc import Sequence
from statistics import fmean, median
from typing import NamedTuple

from mobilezoo.errors import MobilezooError
from mobilezoo.latency_report import Counts
from mobilezoo_latency.emulator.cores import Calibration
from mobilezoo_latency.stats import percentile

DRAM_CYCLES = (0.0, 5.0, 10.0, 20.0, 40.0, 80.0)
"""Values tried for the memory term; a finer grid would fit noise."""
MIN_NETWORKS = 3


class Known(NamedTuple):
    """A network with its counts and its latency on the real board."""

    name: str
    counts: Counts
    real_ms: float


def fit(known: Sequence[Known], basis: str, llvm: str) -> Calibration:
    """Fits a calibration; its error is measured on each network in turn, left out of the fit.

    Args:
        known: at least MIN_NETWORKS networks; the memory term is fitted from 2 * MIN_NETWORKS - 1 on.
        basis: board, runtime and source of the latencies, in words.
        llvm: LLVM version that the cycles come from.

    Raises:
        MobilezooError: too few networks, or a latency that is not positive.
    """
    if len(known) < MIN_NETWORKS:
        raise MobilezooError(f"calibration needs at least {MIN_NETWORKS} networks with known latency, got {len(known)}")
    bad = next((k for k in known if not k.real_ms > 0), None)
    if bad is not None:
        raise MobilezooError(f"calibration: {bad.name} has latency {bad.real_ms!r} ms: expected a positive number")
    scale, dram = _fit(known)
    ratios = [k.real_ms / left_out_ms(known, i) for i, k in enumerate(known)]
    return Calibration(
        ms_per_megacycle=scale,
        dram_cycles=dram,
        error_percent=100 * fmean(abs(1 / ratio - 1) for ratio in ratios),
        low_ratio=percentile(ratios, 10),
        high_ratio=percentile(ratios, 90),
        basis=basis,
        llvm=llvm,
    )


def left_out_ms(known: Sequence[Known], index: int) -> float:
    """Estimates one network in ms from a fit to all others.

    Args:
        known: all networks.
        index: position of the network that is left out.
    """
    scale, dram = _fit([k for i, k in enumerate(known) if i != index])
    return scale * _megacycles(known[index].counts, dram)


def _fit(known: Sequence[Known]) -> tuple[float, float]:
    """(ms per megacycle, cycles per line) with the least mean absolute log error."""
    grid = DRAM_CYCLES if len(known) >= 2 * MIN_NETWORKS - 1 else DRAM_CYCLES[:1]
    best = (math.inf, 0.0, 0.0)
    for dram in grid:
        logs = [math.log(k.real_ms / _megacycles(k.counts, dram)) for k in known]
        center = median(logs)
        best = min(best, (fmean(abs(x - center) for x in logs), math.exp(center), dram))
    return best[1], best[2]


def _megacycles(counts: Counts, dram_cycles: float) -> float:
    return (counts.cycles + dram_cycles * (counts.dram_lines or 0)) / 1e6
