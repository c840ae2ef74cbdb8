"""MnasNet's variables in TensorFlow → our keys.

Official code: tensorflow/tpu, models/official/mnasnet/mnasnet_model.py (Apache-2.0). Layers carry numbers, which count
over the whole network or within a block, as TensorFlow's version had it; within a block they rise in the order in which
the layers were made: expansion, squeeze, excitation, projection. Only squeeze and excitation have biases.
"""

import re
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from mobilezoo.errors import CheckpointError

SCOPE = re.compile(r"mnas_(stem|head|blocks_\d+)/")
NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
Layers = list[dict[str, Tensor]]


def is_mnasnet(state: Iterable[str]) -> bool:
    """Whether these are names of MnasNet's variables in TensorFlow."""
    return any(SCOPE.match(name) for name in state)


def rename(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Rename MnasNet's variables to our keys.

    Args:
        state: TensorFlow's name of a variable → its value, axes in PyTorch's order.
        model: the network they are for.

    Returns:
        Our key → value.

    Raises:
        CheckpointError: they are of a network with other blocks or layers.
    """
    blocks = [f"blocks.{i}.{j}" for i, stage in enumerate(model.get_submodule("blocks").children())
              for j, _ in enumerate(stage.children())]  # fmt: skip
    scopes = {"mnas_stem": "", "mnas_head": "", **{f"mnas_blocks_{k}": f"{name}." for k, name in enumerate(blocks)}}
    theirs = {match[0].rstrip("/") for name in state if (match := SCOPE.match(name))}
    if theirs != set(scopes):
        raise CheckpointError(f"a MnasNet of {len(theirs) - 2} blocks, the network has {len(blocks)}")
    renamed: dict[str, Tensor] = {}
    for scope, ours in scopes.items():
        part = {name.removeprefix(f"{scope}/"): value for name, value in state.items() if name.startswith(f"{scope}/")}
        own = _stem_or_head(scope) if not ours else _of_block(model, ours)
        renamed.update(_matched(scope, part, own))
    return renamed


def _stem_or_head(scope: str) -> dict[str, list[str]]:
    if scope == "mnas_stem":
        return {"conv": ["conv_stem"], "norm": ["bn1"]}
    return {"conv": ["conv_head"], "norm": ["bn2"], "dense": ["classifier"]}


def _of_block(model: nn.Module, prefix: str) -> dict[str, list[str]]:
    """Kind → our layers of a block, in order."""
    found: dict[str, list[str]] = {}
    for name, layer in model.get_submodule(prefix.rstrip(".")).named_modules():
        if isinstance(layer, nn.BatchNorm2d):
            found.setdefault("norm", []).append(prefix + name)
        elif isinstance(layer, nn.Conv2d):
            kind = "depthwise" if layer.groups > 1 else "conv" if layer.bias is None else "gate"
            found.setdefault(kind, []).append(prefix + name)
    return found


def _matched(scope: str, part: dict[str, Tensor], own: dict[str, list[str]]) -> dict[str, Tensor]:
    """Layers of both sides in pairs, kind by kind."""
    theirs = _by_kind(part)
    counts = {kind: len(layers) for kind, layers in theirs.items()}
    if counts != {kind: len(names) for kind, names in own.items()}:
        raise CheckpointError(f"{scope} has other layers than the network's: {counts}")
    renamed = {}
    for kind, names in own.items():
        for name, layer in zip(names, theirs[kind], strict=True):
            renamed.update({f"{name}.{key}": value for key, value in layer.items()})
    return renamed


def _by_kind(part: dict[str, Tensor]) -> dict[str, Layers]:
    layers: dict[str, dict[str, Tensor]] = {}
    for name, value in part.items():
        layer, _, variable = name.rpartition("/")
        layers.setdefault(layer, {})[variable] = value
    found: dict[str, Layers] = {}
    for layer in sorted(layers, key=_number):
        kind, tensors = _understood(layers[layer])
        found.setdefault(kind, []).append(tensors)
    return found


def _number(layer: str) -> int:
    """`conv2d_16` → 16; the first has none."""
    number = re.search(r"_(\d+)$", layer)
    return int(number[1]) if number else 0


def _understood(layer: dict[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """(kind, tensors by PyTorch's names) of a layer's variables."""
    if "gamma" in layer:
        return "norm", {NORM[name]: value for name, value in layer.items() if name in NORM}
    if "depthwise_kernel" in layer:
        return "depthwise", {"weight": layer["depthwise_kernel"]}
    kernel = layer.get("kernel", torch.empty(0))
    tensors = {"weight": kernel, **({"bias": layer["bias"]} if "bias" in layer else {})}
    return "dense" if kernel.ndim == 2 else "gate" if "bias" in layer else "conv", tensors
