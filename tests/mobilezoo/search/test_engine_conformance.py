"""Every engine keeps the contract of `mobilezoo.testing.EngineConformance`; those of Optuna and ours alike."""

import pytest

from mobilezoo.search.engines import ENGINES
from mobilezoo.testing import EngineConformance

QUICK = ("random", "evolution")

for name in ENGINES:
    suite = type(f"Test_{name}", (EngineConformance,), {"engine": name})
    globals()[suite.__name__] = (pytest.mark.slow if name in QUICK else pytest.mark.nightly)(suite)
del suite
