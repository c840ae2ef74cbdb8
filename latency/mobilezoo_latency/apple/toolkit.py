"""The classes of coremltools that measure, and helpers for their objects."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Toolkit(NamedTuple):
    """The classes of coremltools that measure; tests replace them by stand-ins of the same signatures."""

    load: Callable[[str, str], Any]
    """(path, compute units) → MLModel."""
    benchmarker: Any
    devices: Any
    """The `remote_device` module."""


def load_toolkit() -> Toolkit:
    """The classes of the installed coremltools."""
    import coremltools
    from coremltools.models.ml_program.experimental import perf_utils, remote_device

    def load(path: str, units: str) -> Any:
        return coremltools.models.MLModel(path, compute_units=coremltools.ComputeUnit[units], skip_model_load=True)

    return Toolkit(load, perf_utils.MLModelBenchmarker, remote_device)


def seeded_noise(model: Any, shape: tuple[int, ...] | None = None) -> dict[str, Any]:
    """Seeded normal noise for the model's only input.

    Args:
        model: coremltools' MLModel.
        shape: shape of the noise; None for the model's own.

    Returns:
        {name of the input: float32 array}.
    """
    import numpy as np

    described = model.get_spec().description.input[0]
    shape = shape or tuple(int(size) for size in described.type.multiArrayType.shape)
    return {described.name: np.random.default_rng(0).standard_normal(shape, dtype=np.float32)}


def processor_name(device: Any) -> str:
    """CPU, GPU or Neural Engine, from the class that coremltools gives it."""
    name = type(device).__name__
    return "Neural Engine" if "NeuralEngine" in name else "GPU" if "GPU" in name else "CPU" if "CPU" in name else ""


def plan_text(planned: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(planned.items())) or "unknown"
