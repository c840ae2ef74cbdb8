"""Reference outputs of official implementations, on weights that anybody can draw again.

A reference is two files: `NAME.json` lists the official state dict as [key, shape, kind] in order, `NAME.npz` holds the
official output and every array that cannot be drawn. Kinds: "filled" is drawn by `fill` from the key alone, "stored"
lies in the npz as `const:KEY` (running statistics, constant buffers), "zero" is a counter.
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
"""Of the standard normal inputs."""


@dataclass(frozen=True)
class Reference:
    """What an official implementation computed."""

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
        """Largest difference from the official output, over its standard deviation."""
        return float((output - self.output).abs().max() / self.output.std())


def reference_names(folder: Path) -> list[str]:
    """Names of all references in a folder."""
    return sorted(path.stem for path in folder.glob("*.json"))


def load_reference(folder: Path, name: str) -> Reference:
    """Read one reference and draw its weights and inputs."""
    facts = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    arrays = np.load(folder / f"{name}.npz")
    state = {key: _tensor(key, tuple(shape), kind, arrays) for key, shape, kind in facts.pop("state_dict")}
    shape = facts.get("input_shape") or (2, 3, facts["resolution"], facts["resolution"])
    inputs = np.random.RandomState(SEED).standard_normal(shape).astype(np.float32)
    output = arrays["output" if facts.get("kind") == "module" else "logits"].astype(np.float32)
    return Reference(name, state, torch.from_numpy(inputs), torch.from_numpy(output), facts)


def fill(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The value of one official parameter, float32, drawn from its key alone.

    Matrices and kernels have variance 1 / fan-in, weights of norms lie in [0.5, 1.5), biases have deviation 0.1.
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
