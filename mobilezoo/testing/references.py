"""Reference outputs of official implementations, on weights that are reproducible from a seed.

A reference is two files: `NAME.json` lists the official state dict as [key, shape, kind] in order, `NAME.npz` holds the
official output and every array that is not drawn at random. Kinds: "filled" is drawn by `fill` from the key alone,
"stored" lies in the npz as `const:KEY` (running statistics, constant buffers), "zero" is a counter.
"""

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

SEED = 20261120
"""Seed of the standard normal inputs."""


@dataclass(frozen=True)
class Reference:
    """Weights, inputs and output of an official implementation."""

    name: str
    state: dict[str, Tensor]
    """Official key → tensor, as an official checkpoint holds them."""
    inputs: Tensor
    """float32 [2, 3, R, R] for networks, the module's own input shape otherwise."""
    output: Tensor
    """Logits [2, classes] in eval mode, or a module's output."""
    facts: dict[str, Any]
    """`params`, `macs`, `resolution`, `source`, ... of the JSON file."""

    def difference(self, output: Tensor) -> float:
        """Returns the largest absolute difference from the official output, over its standard deviation."""
        return float((output - self.output).abs().max() / self.output.std())


def reference_names(folder: Path) -> list[str]:
    """Names of all references in a folder."""
    return sorted(path.stem for path in folder.glob("*.json"))


def load_reference(folder: Path, name: str) -> Reference:
    """Reads one reference and draws its weights and inputs.

    Args:
        folder: folder of `NAME.json` and `NAME.npz`.
        name: NAME.
    """
    facts = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    arrays = np.load(folder / f"{name}.npz")
    state = {key: _tensor(key, tuple(shape), kind, arrays) for key, shape, kind in facts.pop("state_dict")}
    shape = facts.get("input_shape") or (2, 3, facts["resolution"], facts["resolution"])
    inputs = np.random.RandomState(SEED).standard_normal(shape).astype(np.float32)
    output = arrays["output" if facts.get("kind") == "module" else "logits"].astype(np.float32)
    return Reference(name, state, torch.from_numpy(inputs), torch.from_numpy(output), facts)


def fill(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Draws a parameter from a generator that its key seeds.

    Args:
        key: official name of the parameter.
        shape: its shape.

    Returns:
        float32 array: matrices and kernels normal with variance 1 / fan-in, weights of norms uniform in [0.5, 1.5),
        biases normal with standard deviation 0.1.
    """
    rng = np.random.RandomState(zlib.crc32(key.encode()) & 0xFFFFFFFF)
    size = int(np.prod(shape)) if shape else 1
    if len(shape) >= 2:
        values = rng.standard_normal(size) * np.sqrt(1.0 / max(1, int(np.prod(shape[1:]))))
    elif key.endswith("weight"):
        values = rng.uniform(0.5, 1.5, size)
    else:
        values = 0.1 * rng.standard_normal(size)
    return np.asarray(values.reshape(shape), dtype=np.float32)


def _tensor(key: str, shape: tuple[int, ...], kind: str, arrays: Any) -> Tensor:
    if kind == "filled":
        return torch.from_numpy(fill(key, shape))
    if kind == "stored":
        return torch.from_numpy(np.array(arrays[f"const:{key}"]))
    return torch.zeros(shape, dtype=torch.int64)
