"""Every engine keeps the contract of `mobilezoo.testing.EngineConformance`; those of Optuna and ours alike."""

import pytest

from mobilezoo.search.engines import ENGINES
from mobilezoo.testing import EngineConformance

for name in ENGINES:
    suite = type(f"Test_{name}", (EngineConformance,), {"engine": name})
    globals()[suite.__name__] = pytest.mark.slow(suite)
del suite
