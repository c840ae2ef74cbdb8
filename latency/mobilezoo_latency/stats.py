"""Summaries of raw latency samples. Randomness comes from a generator with a fixed seed, so a summary repeats."""

import math
from collections.abc import Iterable, Sequence
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

__all__ = ["bootstrap_interval", "mad", "median", "median_known", "percentile", "ratio_interval", "summary"]

SEED = 20240229
CELLS = 20_000_000
"""Bound on resamples times samples, so that a long measurement is summarized in seconds."""


def percentile(samples: Sequence[float], q: float) -> float:
    """Percentile, interpolated linearly between samples.

    Args:
        samples: at least one value, in any order.
        q: 0 (smallest) to 100 (largest).
    """
    import numpy as np

    return float(np.percentile(np.asarray(samples, dtype=np.float64), q))


def median_known(values: Iterable[float | None]) -> float | None:
    """Median of the values that are not None; None if all are."""
    known = [value for value in values if value is not None]
    return median(known) if known else None


def mad(samples: Sequence[float]) -> float:
    """Median absolute deviation from the median, unscaled."""
    center = median(samples)
    return median([abs(x - center) for x in samples])


def bootstrap_interval(
    samples: Sequence[float], confidence: float = 0.95, resamples: int = 1000
) -> tuple[float, float]:
    """Interval of the median by the circular block bootstrap (Politis and Romano, 1992).

    Neighboring samples share the machine's state, so blocks of n^(1/3) samples are drawn instead of single ones.

    Args:
        samples: at least one value, in the order they were taken.
        confidence: coverage of the interval, 0..1.
        resamples: bootstrap resamples; fewer for long series (CELLS), at least 200.

    Returns:
        (low, high), in the unit of the samples.
    """
    import numpy as np

    values = np.asarray(samples, dtype=np.float64)
    if len(values) < 2:
        return float(values[0]), float(values[0])
    medians = np.concatenate(_block_medians(values, resamples))
    low, high = np.percentile(medians, [50 - 50 * confidence, 50 + 50 * confidence])
    return float(low), float(high)


def _block_medians(values: "np.ndarray", resamples: int) -> "list[np.ndarray]":
    """Medians of bootstrap resamples, drawn in chunks that bound the memory."""
    import numpy as np

    n = len(values)
    # the block length that balances bias and variance grows with n^(1/3) (Künsch, 1989)
    block = max(1, round(n ** (1 / 3)))
    blocks = math.ceil(n / block)
    resamples = min(resamples, max(200, CELLS // n))
    chunk = max(1, min(resamples, 2_000_000 // n))
    rng = np.random.default_rng(SEED)
    medians = []
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        first = rng.integers(0, n, size=(rows, blocks, 1))
        index = (first + np.arange(block)) % n  # blocks wrap around, so that every sample is drawn equally often
        medians.append(np.median(values[index.reshape(rows, -1)[:, :n]], axis=1))
    return medians


def ratio_interval(ratios: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Median of paired ratios and its interval.

    Args:
        ratios: one per pair, in the order they were taken.
        confidence: coverage of the interval, 0..1.

    Returns:
        (median, low, high).
    """
    low, high = bootstrap_interval(ratios, confidence)
    return median(ratios), low, high


def summary(samples_ms: Sequence[float]) -> dict[str, float]:
    """median, p90, p99, MAD and the median's 95% interval, all in ms."""
    low, high = bootstrap_interval(samples_ms)
    return {
        "median_ms": median(samples_ms),
        "p90_ms": percentile(samples_ms, 90),
        "p99_ms": percentile(samples_ms, 99),
        "mad_ms": mad(samples_ms),
        "ci_low_ms": low,
        "ci_high_ms": high,
    }
