"""Every engine keeps the contract of `mobilezoo.testing.EngineConformance`; those of Optuna and ours alike."""

from mobilezoo.search.engines import ENGINES
from mobilezoo.testing import EngineConformance

globals().update({f"Test_{name}": type(f"Test_{name}", (EngineConformance,), {"engine": name}) for name in ENGINES})
