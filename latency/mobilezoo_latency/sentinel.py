"""A small fixed workload whose time shows whether the machine changed while something else was measured.

It mixes what inference mixes, in about a millisecond: a matrix product that stays in cache, element-wise work, and a
sweep over memory larger than most L2 caches. NumPy's BLAS must run on one thread (the worker's environment sees to it).
"""

import time
from statistics import median

MIN_S = 0.25
MIN_RUNS = 31


class Sentinel:
    """Holds the workload's arrays; `measure` returns the median time of one run in ms."""

    def __init__(self) -> None:
        import numpy as np

        rng = np.random.default_rng(0)
        self._a = rng.standard_normal((192, 192), dtype=np.float32)
        self._b = rng.standard_normal((192, 192), dtype=np.float32)
        self._product = np.empty_like(self._a)
        self._memory = rng.standard_normal(1 << 20, dtype=np.float32)

    def run(self) -> None:
        """The workload, once."""
        import numpy as np

        for _ in range(4):
            np.matmul(self._a, self._b, out=self._product)
        np.maximum(self._product, 0.0, out=self._product)
        self._memory.sum()

    def measure(self, min_s: float = MIN_S, min_runs: int = MIN_RUNS) -> float:
        """Times the workload after a short warm-up of its own.

        Args:
            min_s: fewest seconds.
            min_runs: fewest runs.

        Returns:
            Median time of one run in ms.
        """
        for _ in range(3):
            self.run()
        times: list[float] = []
        begin = time.perf_counter()
        while len(times) < min_runs or time.perf_counter() - begin < min_s:
            start = time.perf_counter()
            self.run()
            times.append((time.perf_counter() - start) * 1e3)
        return median(times)
